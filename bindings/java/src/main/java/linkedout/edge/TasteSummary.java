package linkedout.edge;

import java.util.List;
import org.jetbrains.annotations.NotNull;

/** What the model believes a user likes, to be shown to them. */
public final class TasteSummary {
    private final int events;
    private final List<Interest> likes;
    private final List<String> avoids;
    private final double[] layers;
    private final String sentence;

    TasteSummary(int events, List<Interest> likes, List<String> avoids, double[] layers, String sentence) {
        this.events = events;
        this.likes = likes;
        this.avoids = avoids;
        this.layers = layers;
        this.sentence = sentence;
    }

    /** That it rests on. */
    public int events() {
        return events;
    }

    /** None, one or two, the larger first. */
    public @NotNull List<@NotNull Interest> likes() {
        return likes;
    }

    /** Ids of watched videos whose like is ranked low. */
    public @NotNull List<@NotNull String> avoids() {
        return avoids;
    }

    /** L trusts that sum to 1: at which depth of the model the taste lives. */
    public @NotNull double[] layers() {
        return layers.clone();
    }

    /** In English. */
    public @NotNull String sentence() {
        return sentence;
    }

    @Override
    public String toString() {
        return sentence;
    }
}
