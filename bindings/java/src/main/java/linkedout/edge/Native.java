package linkedout.edge;

import java.nio.ByteBuffer;

/**
 * The functions of src/main/native/jni.cpp. Text is as {@link Texts} writes it; each throws {@link LinkedOutException}.
 * A position below 0 is out of range.
 */
final class Native {
    static final int TEXT_ID = 0;
    static final int TEXT_TITLE = 1;
    static final int TEXT_CONTENT = 2;
    static final int AVOIDED = -1;

    private static boolean loaded;

    private Native() {}

    /** Load the library, once. Whatever does not begin with a recommender calls this first. */
    static synchronized void loadLibrary() {
        if (loaded) {
            return;
        }
        String path = System.getProperty("linkedout.edge.library");
        try {
            if (path == null) {
                System.loadLibrary("linkedout_edge_jni");
            } else {
                System.load(path);
            }
            loaded = true;
        } catch (UnsatisfiedLinkError e) {
            LinkedOutException said = new LinkedOutException(
                    Status.MISSING_DEPENDENCY,
                    "the native library cannot be loaded (" + e.getMessage() + "): put the folder of "
                            + System.mapLibraryName("linkedout_edge_jni") + " on java.library.path, or name the file, by"
                            + " its full path, in the system property linkedout.edge.library");
            said.initCause(e);
            throw said;
        }
    }

    static native void close(int kind, long handle);

    static native byte[] version();

    static native long load(
            byte[] bundle, byte[] precision, byte[] onnxruntime, int threads, boolean withoutEncoder);

    /** frames, frame_size, title_tokens, layers, tokens_per_layer, token_width, threads, has_encoder, features_size. */
    static native long[] info(Handle recommender);

    static native byte[] infoText(Handle recommender, int which, int index);

    static native long[] chooseFrames(Handle recommender, long total);

    /** The pixels are `size` bytes from `offset` of `array`, or of the direct buffer where there is no array. */
    static native byte[] prepareFrames(
            Handle recommender, byte[] array, ByteBuffer direct, int offset, int size, int count, int height, int width);

    static native int[] tokenize(Handle recommender, byte[] title);

    static native byte[] encode(
            Handle recommender,
            byte[] array,
            ByteBuffer direct,
            int offset,
            int size,
            int count,
            int height,
            int width,
            byte[] title);

    static native long createStore(Handle recommender);

    static native void put(Handle store, byte[] id, byte[] title, byte[] content, byte[] features);

    static native int remove(Handle store, byte[] ids);

    static native int storeCount(Handle store);

    /** -1 where there is none. */
    static native int find(Handle store, byte[] id);

    static native byte[] storeText(Handle store, int position, int which);

    static native byte[] storeFeatures(Handle store, int position, int size);

    static native int readPack(Handle store, byte[] pack);

    /** `ids` null: all. */
    static native byte[] writePack(Handle store, byte[] ids);

    static native long createHistory(Handle recommender);

    static native long loadHistory(Handle recommender, byte[] saved);

    /** `features` null: those that the history has of the id. `liked`: 1, 0 or -1 (unknown). */
    static native void add(
            Handle history, byte[] id, byte[] title, byte[] features, double watched, int liked, boolean hasAt, double at);

    static native int forget(Handle history, byte[] id);

    static native int forgetSince(Handle history, double at);

    static native int clear(Handle history);

    static native int historyCount(Handle history);

    /** watched, liked, has_at, at. */
    static native double[] historyEvent(Handle history, int position);

    static native byte[] historyText(Handle history, int position, int which);

    static native byte[] historyFeatures(Handle history, int position, int size);

    static native byte[] save(Handle history);

    static native long rank(
            Handle recommender,
            Handle store,
            Handle history,
            byte[] candidates,
            long topK,
            double diversity,
            double explore,
            boolean excludeWatched,
            boolean foldDuplicates,
            double[] prior,
            byte[] priorIds,
            double priorWeight,
            double now);

    /** places, failed, events, layers. */
    static native int[] rankingSizes(Handle ranking);

    static native void rankingPlaces(Handle ranking, long[] positions, float[] scores, int[] sources, float[] layers);

    static native byte[] rankingIds(Handle ranking);

    static native void rankingFailed(Handle ranking, long[] positions, int[] statuses);

    /** score, prior, explored. */
    static native double[] explain(Handle ranking, int place, float[] matrix);

    static native byte[] rankingSentence(Handle ranking, int place);

    static native byte[] eventIds(Handle ranking);

    static native long taste(Handle recommender, Handle store, Handle history, double now);

    /** events, interests, avoided, layers. */
    static native int[] tasteSizes(Handle taste);

    static native double tasteShare(Handle taste, int interest);

    static native byte[] tasteVideos(Handle taste, int interest);

    static native double[] tasteLayers(Handle taste);

    static native byte[] tasteSentence(Handle taste);
}
