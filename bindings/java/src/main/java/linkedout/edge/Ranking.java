package linkedout.edge;

import java.io.Closeable;
import java.util.AbstractList;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.RandomAccess;
import org.jetbrains.annotations.NotNull;

/** Videos, best first. A closed one still is this list; only {@link Ranked#explain} needs it open. */
public final class Ranking extends AbstractList<@NotNull Ranked> implements RandomAccess, Closeable {
    private static final Source[] SOURCES = Source.values();

    private final Handle handle;
    private final List<String> ids;
    private final List<Failed> failed;
    private final int events;
    private final int width;
    private final long[] positions;
    private final float[] scores;
    private final int[] sources;
    private final float[] layers; // [places][width]

    /** @param candidates null: the whole store was ranked */
    Ranking(long number, List<String> candidates) {
        handle = new Handle(Handle.Kind.RANKING, number);
        int[] sizes = Native.rankingSizes(handle);
        int places = sizes[0];
        events = sizes[2];
        width = sizes[3];
        positions = new long[places];
        scores = new float[places];
        sources = new int[places];
        layers = new float[places * width];
        Native.rankingPlaces(handle, positions, scores, sources, layers);
        ids = Collections.unmodifiableList(
                candidates == null ? Texts.decodeList(Native.rankingIds(handle)) : at(candidates, positions));
        failed = failed(sizes[1], candidates);
    }

    private static List<String> at(List<String> candidates, long[] positions) {
        List<String> out = new ArrayList<>(positions.length);
        for (long position : positions) {
            out.add(candidates.get((int) position));
        }
        return out;
    }

    private List<Failed> failed(int count, List<String> candidates) {
        if (count == 0) {
            return Collections.emptyList();
        }
        long[] where = new long[count];
        int[] why = new int[count];
        Native.rankingFailed(handle, where, why);
        List<Failed> out = new ArrayList<>(count);
        for (int n = 0; n < count; n++) {
            out.add(new Failed(candidates.get((int) where[n]), Status.of(why[n]), (int) where[n]));
        }
        return Collections.unmodifiableList(out);
    }

    @Override
    public int size() {
        return scores.length;
    }

    /** @param place from 0 */
    @Override
    public @NotNull Ranked get(int place) {
        String id = ids.get(place);
        float[] own = Arrays.copyOfRange(layers, place * width, (place + 1) * width);
        return new Ranked(this, place + 1, id, scores[place], own, SOURCES[sources[place]], (int) positions[place]);
    }

    public @NotNull List<@NotNull String> ids() {
        return ids;
    }

    public @NotNull float[] scores() {
        return scores.clone();
    }

    /** Candidates that could not be ranked. */
    public @NotNull List<@NotNull Failed> failed() {
        return failed;
    }

    Explanation explain(int place) {
        float[] flat = new float[events * width];
        double[] numbers = Native.explain(handle, place, flat);
        float[][] matrix = new float[events][];
        for (int event = 0; event < events; event++) {
            matrix[event] = Arrays.copyOfRange(flat, event * width, (event + 1) * width);
        }
        List<String> history = Collections.unmodifiableList(Texts.decodeList(Native.eventIds(handle)));
        return new Explanation(numbers, matrix, history, Texts.decode(Native.rankingSentence(handle, place)));
    }

    /** Release what explanations need. Closing again does nothing. */
    @Override
    public void close() {
        handle.close();
    }
}
