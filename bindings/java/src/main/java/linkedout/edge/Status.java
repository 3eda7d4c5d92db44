package linkedout.edge;

import org.jetbrains.annotations.NotNull;

/** What can be wrong, by the names of the C interface. */
public enum Status {
    /** Nothing: no exception has it. */
    OK,
    /** A value that makes no sense; null where something is needed. */
    ARGUMENT,
    /** It was closed. */
    CLOSED,
    /** There is no folder of that name. */
    BUNDLE_NOT_FOUND,
    /** The bundle's files are not what its manifest says. */
    BUNDLE_CORRUPT,
    /** A bundle of a format that this version does not read. */
    BUNDLE_VERSION,
    /** The inference library failed, or scores are no numbers. */
    BACKEND,
    /** This CPU would compute the graph wrongly. */
    DEVICE,
    /** ONNX Runtime or the native library cannot be loaded, or the recommender was loaded without the encoder. */
    MISSING_DEPENDENCY,
    /** Not a feature pack or saved history, or a damaged one. */
    PACK,
    /** Made by another model: its features mean something else. */
    TOKEN_SPACE,
    /** No video of that id. */
    NOT_FOUND,
    /** Not uint8 [F, H, W, 3] RGB. */
    INVALID_FRAMES,
    /** Never seen in Java: buffers are made as large as they have to be. */
    BUFFER_TOO_SMALL,
    /** There was no memory left; nothing has changed. */
    OUT_OF_MEMORY,
    /** A bug of ours: please report it. */
    INTERNAL;

    private static final Status[] ALL = values();

    static @NotNull Status of(int number) {
        return number >= 0 && number < ALL.length ? ALL[number] : INTERNAL;
    }
}
