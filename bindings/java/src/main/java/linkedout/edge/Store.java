package linkedout.edge;

import java.util.Collection;
import org.jetbrains.annotations.NotNull;

/** Videos that can be ranked, in memory. The average video, which scores 0, follows what stores hold. */
public final class Store extends Handle {
    private final int featuresSize;

    public Store(@NotNull Recommender recommender) {
        super(Kind.STORE, Native.createStore(LinkedOutException.need(recommender, "recommender")));
        featuresSize = recommender.featuresSize();
    }

    /** Add a video, or replace the one of the same id where it stands. */
    public synchronized void put(@NotNull Video video) {
        LinkedOutException.need(video, "video");
        Native.put(
                this,
                Texts.encode(video.id()),
                Texts.encode(video.title()),
                Texts.encode(video.content()),
                video.features());
    }

    /** How many of the ids were there. Positions behind them move up. */
    public synchronized int remove(@NotNull Collection<@NotNull String> ids) {
        return Native.remove(this, Texts.encode(LinkedOutException.need(ids, "ids"), "ids"));
    }

    public int size() {
        return Native.storeCount(this);
    }

    /** Position of an id, from 0 in order of arrival; -1 if it is not there. */
    public int find(@NotNull String id) {
        return Native.find(this, Texts.encode(LinkedOutException.need(id, "id")));
    }

    /** By position. */
    public synchronized @NotNull Video get(int position) {
        byte[] features = Native.storeFeatures(this, position, featuresSize);
        String title = text(position, Native.TEXT_TITLE);
        return new Video(
                text(position, Native.TEXT_ID),
                features,
                title.isEmpty() ? null : title,
                text(position, Native.TEXT_CONTENT));
    }

    /** Take over all videos of a feature pack, the same file that Python writes. How many it has. */
    public synchronized int readPack(@NotNull byte[] pack) {
        return Native.readPack(this, LinkedOutException.need(pack, "pack"));
    }

    /** A feature pack of all. */
    public @NotNull byte[] writePack() {
        return Native.writePack(this, null);
    }

    /** A feature pack of these. */
    public @NotNull byte[] writePack(@NotNull Collection<@NotNull String> ids) {
        return Native.writePack(this, Texts.encode(LinkedOutException.need(ids, "ids"), "ids"));
    }

    private String text(int position, int which) {
        return Texts.decode(Native.storeText(this, position, which));
    }
}
