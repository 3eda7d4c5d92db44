package linkedout.edge;

import org.jetbrains.annotations.NotNull;
import org.jetbrains.annotations.Nullable;

/** How to open a bundle. It never changes: each {@code with…} gives another one. */
public final class LoadOptions {
    final String precision;
    final String onnxruntime;
    final int threads;
    final boolean withoutEncoder;

    /** The bundle's first precision, ONNX Runtime from the system's search path, as many threads as the process may use. */
    public LoadOptions() {
        this(null, null, 0, false);
    }

    private LoadOptions(String precision, String onnxruntime, int threads, boolean withoutEncoder) {
        this.precision = precision;
        this.onnxruntime = onnxruntime;
        this.threads = threads;
        this.withoutEncoder = withoutEncoder;
    }

    /** @param precision such as "int8"; null: the bundle's first */
    public @NotNull LoadOptions withPrecision(@Nullable String precision) {
        return new LoadOptions(precision, onnxruntime, threads, withoutEncoder);
    }

    /** @param onnxruntime path of its library, 1.20 or newer; null: the system's search path, as an Android app has it */
    public @NotNull LoadOptions withOnnxruntime(@Nullable String onnxruntime) {
        return new LoadOptions(precision, onnxruntime, threads, withoutEncoder);
    }

    /** @param threads of the encoder; 0: as many as the process may use */
    public @NotNull LoadOptions withThreads(int threads) {
        return new LoadOptions(precision, onnxruntime, threads, withoutEncoder);
    }

    /** Do not load ONNX Runtime: all but {@link Recommender#encode} works. */
    public @NotNull LoadOptions withoutEncoder() {
        return new LoadOptions(precision, onnxruntime, threads, true);
    }
}
