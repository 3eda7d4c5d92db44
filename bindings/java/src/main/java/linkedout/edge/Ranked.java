package linkedout.edge;

import java.util.Arrays;
import java.util.Objects;
import org.jetbrains.annotations.NotNull;

/** A video in a ranking. */
public final class Ranked {
    private final Ranking ranking;
    private final int rank;
    private final @NotNull String id;
    private final float score;
    private final @NotNull float[] layers;
    private final @NotNull Source source;
    private final int position;

    Ranked(Ranking ranking, int rank, String id, float score, float[] layers, Source source, int position) {
        this.ranking = ranking;
        this.rank = rank;
        this.id = id;
        this.score = score;
        this.layers = layers;
        this.source = source;
        this.position = position;
    }

    /** Its place, from 1. */
    public int rank() {
        return rank;
    }

    public @NotNull String id() {
        return id;
    }

    /** In standard deviations of the calibration set; the average video has 0. */
    public float score() {
        return score;
    }

    /** What each layer contributes; they sum to the score, less what prior and explore added. */
    public @NotNull float[] layers() {
        return layers.clone();
    }

    public @NotNull Source source() {
        return source;
    }

    /** Where its id stands in the candidates as given; of a ranking of the whole store: where it stood in the store. */
    public int position() {
        return position;
    }

    /**
     * Why it stands where it stands. The ranking must be open; beyond the first 4,096 places the video must still be in the
     * store as it was.
     */
    public @NotNull Explanation explain() {
        return ranking.explain(rank - 1);
    }

    @Override
    public boolean equals(Object other) {
        if (!(other instanceof Ranked)) {
            return false;
        }
        Ranked that = (Ranked) other;
        return rank == that.rank
                && id.equals(that.id)
                && Float.compare(score, that.score) == 0
                && Arrays.equals(layers, that.layers)
                && source == that.source
                && position == that.position;
    }

    @Override
    public int hashCode() {
        return Objects.hash(rank, id, score);
    }

    @Override
    public String toString() {
        return rank + ". " + id + " (" + score + ")";
    }
}
