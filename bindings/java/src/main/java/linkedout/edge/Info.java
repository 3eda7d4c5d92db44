package linkedout.edge;

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import org.jetbrains.annotations.NotNull;

/** What a bundle is, and what runs it. */
public final class Info {
    private final long[] numbers;
    private final String[] texts = new String[8];
    private final List<String> layerNames;

    Info(Handle recommender) {
        numbers = Native.info(recommender);
        for (int which : new int[] {0, 1, 2, 3, 4, 6, 7}) {
            texts[which] = Texts.decode(Native.infoText(recommender, which, 0));
        }
        List<String> names = new ArrayList<>();
        for (int layer = 0; layer < layers(); layer++) {
            names.add(Texts.decode(Native.infoText(recommender, 5, layer)));
        }
        layerNames = Collections.unmodifiableList(names);
    }

    /** Frames that the encoder takes of a video. */
    public int frames() {
        return (int) numbers[0];
    }

    /** Their height and width. */
    public int frameSize() {
        return (int) numbers[1];
    }

    /** Ids of a title that the encoder reads. */
    public int titleTokens() {
        return (int) numbers[2];
    }

    public int layers() {
        return (int) numbers[3];
    }

    public int tokensPerLayer() {
        return (int) numbers[4];
    }

    public int tokenWidth() {
        return (int) numbers[5];
    }

    /** Of the encoder; 0 without one. */
    public int threads() {
        return (int) numbers[6];
    }

    public boolean hasEncoder() {
        return numbers[7] != 0;
    }

    /** Bytes kept of a video. */
    public int featuresSize() {
        return (int) numbers[8];
    }

    /** Name of the bundle. */
    public @NotNull String bundle() {
        return texts[0];
    }

    public @NotNull String precision() {
        return texts[1];
    }

    /** Features are interchangeable within one. */
    public @NotNull String tokenSpace() {
        return texts[2];
    }

    /** "onnxruntime 1.32.0"; "" without the encoder. */
    public @NotNull String backend() {
        return texts[3];
    }

    /** What computes scores, such as "AVX2 kernel". */
    public @NotNull String scorer() {
        return texts[4];
    }

    public @NotNull List<@NotNull String> layerNames() {
        return layerNames;
    }

    /** Of the weights. */
    public @NotNull String license() {
        return texts[6];
    }

    /** What the weights were trained on. */
    public @NotNull String provenance() {
        return texts[7];
    }
}
