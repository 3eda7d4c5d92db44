package linkedout.edge;

import java.util.List;
import org.jetbrains.annotations.NotNull;

/** Something that a user likes. */
public final class Interest {
    private final double share;
    private final @NotNull List<@NotNull String> videos;

    Interest(double share, List<String> videos) {
        this.share = share;
        this.videos = videos;
    }

    /** Of the events that attract. */
    public double share() {
        return share;
    }

    /** Ids of watched videos that show it, the best first. */
    public @NotNull List<@NotNull String> videos() {
        return videos;
    }
}
