package linkedout.edge;

import java.time.Instant;
import org.jetbrains.annotations.NotNull;
import org.jetbrains.annotations.Nullable;

/** How to rank. It never changes: each {@code with…} gives another one. */
public final class RankOptions {
    private static final int ALL = -1;

    private int topK = ALL;
    private double diversity;
    private double explore;
    private boolean excludeWatched;
    private boolean foldDuplicates;
    private Prior prior;
    private Instant now;

    /** All, by score alone. */
    public RankOptions() {}

    private RankOptions(RankOptions from) {
        topK = from.topK;
        diversity = from.diversity;
        explore = from.explore;
        excludeWatched = from.excludeWatched;
        foldDuplicates = from.foldDuplicates;
        prior = from.prior;
        now = from.now;
    }

    /** @param topK give only so many, from 1 on */
    public @NotNull RankOptions withTopK(int topK) {
        if (topK < 1) {
            throw LinkedOutException.argument("topK must be at least 1, not " + topK + "; without it all are given");
        }
        RankOptions out = new RankOptions(this);
        out.topK = topK;
        return out;
    }

    /** @param diversity 0 to 1: how much the best 200 are reordered so that neighbors differ */
    public @NotNull RankOptions withDiversity(double diversity) {
        RankOptions out = new RankOptions(this);
        out.diversity = diversity;
        return out;
    }

    /** @param explore 0 to 1: how much it counts that little is known of a video */
    public @NotNull RankOptions withExplore(double explore) {
        RankOptions out = new RankOptions(this);
        out.explore = explore;
        return out;
    }

    /** @param excludeWatched leave out candidates that are in the history */
    public @NotNull RankOptions withExcludeWatched(boolean excludeWatched) {
        RankOptions out = new RankOptions(this);
        out.excludeWatched = excludeWatched;
        return out;
    }

    /** @param foldDuplicates of near-identical videos only the best placed one */
    public @NotNull RankOptions withFoldDuplicates(boolean foldDuplicates) {
        RankOptions out = new RankOptions(this);
        out.foldDuplicates = foldDuplicates;
        return out;
    }

    public @NotNull RankOptions withPrior(@Nullable Prior prior) {
        RankOptions out = new RankOptions(this);
        out.prior = prior;
        return out;
    }

    /** @param now what ages are taken from; null: the present hour */
    public @NotNull RankOptions withNow(@Nullable Instant now) {
        RankOptions out = new RankOptions(this);
        out.now = now;
        return out;
    }

    long rank(Handle recommender, Handle store, Handle history, byte[] candidates) {
        if (prior != null && prior.ids == null && candidates == null) {
            throw LinkedOutException.argument(
                    "a prior of bare values has nothing to be aligned with: pass candidates, or Prior.of(map)");
        }
        return Native.rank(
                recommender,
                store,
                history,
                candidates,
                topK,
                diversity,
                explore,
                excludeWatched,
                foldDuplicates,
                prior == null ? null : prior.values,
                prior == null || prior.ids == null ? null : Texts.encode(prior.ids, "prior"),
                prior == null ? 1.0 : prior.weight,
                now == null ? 0.0 : Seconds.of(now));
    }
}
