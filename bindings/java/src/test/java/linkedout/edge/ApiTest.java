package linkedout.edge;

import static linkedout.edge.Testing.features;
import static linkedout.edge.Testing.refused;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.JsonObject;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** That each value and option of Java reaches the core, and comes back. */
class ApiTest {
    private static final int VIDEOS = 20;
    private static final Instant NOW = Instant.parse("2026-11-27T12:00:00Z");

    private Recommender rec;
    private Store store;
    private History history;

    @BeforeEach
    void open() {
        rec = Testing.withoutEncoder();
        store = new Store(rec);
        history = new History(rec);
        for (int n = 0; n < VIDEOS; n++) {
            store.put(new Video("v" + n, features(n)));
        }
        history.add(new Event("v0", features(0), "Zero"));
        history.add(new Event("v1", features(1)).withWatched(0.1));
        history.add(new Event("v2", features(2)).withLiked(true).withAt(NOW.minus(Duration.ofDays(2))));
    }

    @AfterEach
    void close() {
        history.close();
        store.close();
        rec.close();
    }

    private List<String> all() {
        List<String> out = new ArrayList<>();
        for (int n = 0; n < VIDEOS; n++) {
            out.add("v" + n);
        }
        return out;
    }

    private Ranking rank(RankOptions options) {
        return rec.rank(store, history, all(), options.withNow(NOW));
    }

    @Test
    void info() {
        Info info = rec.info();
        assertEquals(6, info.layers());
        assertEquals(6, info.layerNames().size());
        assertEquals(6, info.layerNames().stream().distinct().count());
        assertEquals(info.layers() * info.tokensPerLayer() * (info.tokenWidth() + 4), info.featuresSize());
        assertEquals(816, info.featuresSize());
        assertEquals(7, info.frames());
        assertEquals(144, info.frameSize());
        assertFalse(info.hasEncoder());
        assertEquals(0, info.threads());
        assertEquals("", info.backend());
        assertTrue(info.scorer().endsWith(" kernel"), info.scorer());
        assertEquals(64, info.tokenSpace().length());
        assertFalse(info.license().isEmpty());
        assertFalse(info.provenance().isEmpty());
        assertTrue(Recommender.version().matches("\\d+\\.\\d+\\.\\d+"));
        try (Recommender encoder = Testing.withEncoder()) {
            assertTrue(encoder.info().hasEncoder());
            assertEquals(1, encoder.info().threads());
            assertTrue(encoder.info().backend().startsWith("onnxruntime 1."), encoder.info().backend());
        }
    }

    @Test
    void framesInAnyBufferAreTheSame() {
        byte[] rgb = new byte[2 * 90 * 160 * 3];
        new Random(1).nextBytes(rgb);
        byte[] wanted = rec.prepareFrames(new Frames(rgb, 2, 90, 160));
        assertEquals(2 * 144 * 144 * 3, wanted.length);
        ByteBuffer direct = ByteBuffer.allocateDirect(rgb.length + 11);
        direct.position(7);
        direct.put(rgb).limit(7 + rgb.length).position(7);
        assertArrayEquals(wanted, rec.prepareFrames(new Frames(direct, 2, 90, 160)));
        assertArrayEquals(wanted, rec.prepareFrames(new Frames(direct.asReadOnlyBuffer(), 2, 90, 160)));
        ByteBuffer heap = ByteBuffer.allocate(rgb.length + 5);
        heap.position(2);
        ByteBuffer part = heap.slice();
        part.position(3);
        part.put(rgb).flip().position(3);
        Frames kept = new Frames(part, 2, 90, 160);
        part.position(0); // what was handed in has its own position
        assertArrayEquals(wanted, rec.prepareFrames(kept));
        part.position(3);
        assertArrayEquals(wanted, rec.prepareFrames(new Frames(part.asReadOnlyBuffer(), 2, 90, 160)));
    }

    @Test
    void encodingReadsTheTitle() {
        byte[] rgb = new byte[3 * 50 * 40 * 3];
        new Random(2).nextBytes(rgb);
        Frames frames = new Frames(rgb, 3, 50, 40);
        try (Recommender encoder = Testing.withEncoder()) {
            byte[] plain = encoder.encode(frames);
            assertArrayEquals(plain, encoder.encode(frames, null));
            assertEquals(816, plain.length);
            assertNotEquals(ByteBuffer.wrap(plain), ByteBuffer.wrap(encoder.encode(frames, "Two cats at the sea")));
        }
    }

    @Test
    void videosComeBackAsTheyWere() {
        store.put(new Video("ü/“x”", features(99), "Tïtle 🎈", "0123"));
        Video got = store.get(store.find("ü/“x”"));
        assertEquals("ü/“x”", got.id());
        assertEquals("Tïtle 🎈", got.title());
        assertEquals("0123", got.content());
        assertArrayEquals(features(99), got.features());
        assertNull(store.get(0).title());
        assertEquals("", store.get(0).content());
        got.features()[0]++;
        assertArrayEquals(features(99), got.features());
        store.put(new Video("v0", features(77)));
        assertArrayEquals(features(77), store.get(0).features());
        assertEquals(VIDEOS + 1, store.size());
        assertEquals(2, store.remove(List.of("v0", "nobody", "v3")));
        assertEquals(-1, store.find("v0"));
        assertEquals(0, store.find("v1"));
        assertEquals(0, store.remove(List.of()));
    }

    @Test
    void eventsComeBackAsTheyWere() {
        assertEquals(3, history.size());
        Event first = history.get(0);
        assertEquals("v0", first.id());
        assertEquals("Zero", first.title());
        assertEquals(1.0, first.watched());
        assertNull(first.liked());
        assertNull(first.at());
        assertArrayEquals(features(0), first.features());
        assertEquals(0.1, history.get(1).watched());
        assertNull(history.get(1).title());
        assertEquals(true, history.get(2).liked());
        assertEquals(NOW.minus(Duration.ofDays(2)), history.get(2).at());
        Instant fine = Instant.parse("2026-01-02T03:04:05.678901Z");
        history.add(new Event("v0").withLiked(false).withAt(fine));
        assertEquals(false, history.get(3).liked());
        assertEquals(fine, history.get(3).at());
        assertArrayEquals(features(0), history.get(3).features());
        Instant long_ago = Instant.parse("0001-01-02T00:00:00.25Z");
        history.add(new Event("v0").withAt(long_ago));
        assertEquals(long_ago, history.get(4).at());
        refused(Status.NOT_FOUND, () -> history.add(new Event("nobody")));
    }

    @Test
    void forgetting() {
        Instant soon = Instant.now().plusSeconds(3600);
        history.add(new Event("v3", features(3)).withAt(soon));
        assertEquals(1, history.forget("v0"));
        assertEquals(0, history.forget("v0"));
        assertEquals(1, history.forgetSince(soon.minusSeconds(1)));
        assertEquals(2, history.size());
        assertEquals(2, history.clear());
        assertEquals(0, history.size());
    }

    @Test
    void savedAndLoaded() {
        byte[] saved = history.save();
        try (History other = History.load(rec, saved)) {
            assertEquals(3, other.size());
            assertArrayEquals(saved, other.save());
            try (Ranking a = rank(new RankOptions());
                    Ranking b = rec.rank(store, other, all(), new RankOptions().withNow(NOW))) {
                assertEquals(a, b);
            }
        }
        history.forget("v2");
        assertTrue(history.save().length < saved.length);
    }

    @Test
    void packs() {
        byte[] pack = store.writePack(List.of("v5", "v3"));
        try (Store other = new Store(rec)) {
            assertEquals(2, other.readPack(pack));
            assertEquals("v5", other.get(0).id());
            assertArrayEquals(features(3), other.get(1).features());
            assertArrayEquals(pack, other.writePack());
            assertEquals(0, other.readPack(store.writePack(List.of())));
        }
        refused(Status.NOT_FOUND, () -> store.writePack(List.of("v5", "nobody")));
    }

    @Test
    void aRankingIsAList() {
        try (Ranking ranking = rank(new RankOptions())) {
            assertEquals(VIDEOS, ranking.size());
            assertEquals(VIDEOS, ranking.stream().map(Ranked::id).distinct().count());
            for (int place = 0; place < VIDEOS; place++) {
                Ranked r = ranking.get(place);
                assertEquals(place + 1, r.rank());
                assertEquals(ranking.ids().get(place), r.id());
                assertEquals(ranking.scores()[place], r.score());
                assertEquals("v" + r.position(), r.id());
                assertEquals(Source.CONTENT, r.source());
                float sum = 0;
                for (float layer : r.layers()) {
                    sum += layer;
                }
                assertEquals(r.score(), sum, 1e-4);
                assertTrue(place == 0 || r.score() <= ranking.get(place - 1).score());
            }
            assertEquals(3, ranking.indexOf(ranking.get(3)));
            assertThrows(IndexOutOfBoundsException.class, () -> ranking.get(VIDEOS));
            assertThrows(IndexOutOfBoundsException.class, () -> ranking.get(-1));
            assertThrows(UnsupportedOperationException.class, () -> ranking.remove(0));
            assertThrows(UnsupportedOperationException.class, () -> ranking.ids().clear());
        }
    }

    @Test
    void allThatWasNotWatched() {
        try (Ranking ranking = rec.rank(store, history)) {
            assertEquals(VIDEOS - 3, ranking.size());
            for (Ranked r : ranking) {
                assertEquals("v" + r.position(), r.id());
            }
        }
        try (Ranking none = rec.rank(store, history, List.of())) {
            assertEquals(0, none.size());
        }
        try (Ranking twice = rec.rank(store, history, List.of("v5", "nobody", "v5", "v6"))) {
            assertEquals(2, twice.size());
            assertEquals("nobody", twice.failed().get(0).id());
            assertEquals(1, twice.failed().get(0).position());
        }
        try (Ranking cold = rec.rank(store, null)) {
            assertEquals(VIDEOS, cold.size());
            assertEquals(Source.COLD_START, cold.get(0).source());
        }
    }

    @Test
    void eachOptionDoesWhatItSays() {
        store.put(new Video("copy", features(9)));
        List<String> ids = all();
        ids.add("copy");
        try (Ranking plain = rec.rank(store, history, ids, new RankOptions().withNow(NOW));
                Ranking three = rank(new RankOptions().withTopK(3));
                Ranking many = rank(new RankOptions().withTopK(Integer.MAX_VALUE));
                Ranking diverse = rank(new RankOptions().withDiversity(1));
                Ranking curious = rank(new RankOptions().withExplore(1));
                Ranking fresh = rank(new RankOptions().withExcludeWatched(true));
                Ranking older = rec.rank(store, history, ids, new RankOptions().withNow(NOW.plus(400, ChronoUnit.DAYS)));
                Ranking folded = rec.rank(store, history, ids, new RankOptions().withFoldDuplicates(true))) {
            assertEquals(VIDEOS + 1, plain.size());
            assertEquals(3, three.size());
            assertEquals(VIDEOS, many.size());
            assertNotEquals(many.ids(), diverse.ids());
            assertNotEquals(many.scores()[0], curious.scores()[0]);
            assertNotEquals(0.0, curious.get(0).explain().explored());
            assertEquals(0.0, many.get(0).explain().explored());
            assertEquals(VIDEOS - 3, fresh.size());
            assertTrue(Collections.disjoint(fresh.ids(), List.of("v0", "v1", "v2")));
            assertNotEquals(plain.scores()[0], older.scores()[0]);
            assertEquals(VIDEOS, folded.size());
        }
        refused(Status.ARGUMENT, () -> new RankOptions().withTopK(0));
        refused(Status.ARGUMENT, () -> new RankOptions().withTopK(-1));
        refused(Status.ARGUMENT, () -> rank(new RankOptions().withDiversity(30)));
        refused(Status.ARGUMENT, () -> rank(new RankOptions().withExplore(Double.NaN)));
    }

    @Test
    void optionsNeverChange() {
        RankOptions plain = new RankOptions();
        RankOptions all = plain.withTopK(2)
                .withDiversity(0.1)
                .withExplore(0.2)
                .withExcludeWatched(true)
                .withFoldDuplicates(true)
                .withPrior(null);
        try (Ranking a = rank(plain);
                Ranking b = rank(all);
                Ranking c = rank(all.withTopK(5))) {
            assertEquals(VIDEOS, a.size());
            assertEquals(2, b.size());
            assertEquals(5, c.size());
            assertEquals(b.ids(), c.ids().subList(0, 2));
        }
    }

    @Test
    void priors() {
        double[] values = new double[VIDEOS];
        Map<String, Double> byId = new HashMap<>();
        for (int n = 0; n < VIDEOS; n++) {
            values[n] = n % 7 == 3 ? Double.NaN : n * n % 31;
            if (n % 7 != 3) {
                byId.put("v" + n, values[n]);
            }
        }
        try (Ranking plain = rank(new RankOptions());
                Ranking aligned = rank(new RankOptions().withPrior(Prior.of(values)));
                Ranking mapped = rank(new RankOptions().withPrior(Prior.of(byId)));
                Ranking whole = rec.rank(store, history, null, new RankOptions().withPrior(Prior.of(byId)));
                Ranking against = rank(new RankOptions().withPrior(Prior.of(values).withWeight(-100)))) {
            assertEquals(aligned, mapped);
            assertNotEquals(plain.ids(), aligned.ids());
            assertNotEquals(0.0, aligned.get(0).explain().prior());
            assertEquals(VIDEOS - 3, whole.size());
            assertEquals(0.0, byId.get(against.ids().get(0)));
        }
        try (Ranking alone = rec.rank(store, null, all(), new RankOptions().withPrior(Prior.of(values)))) {
            assertEquals(Source.PRIOR, alone.get(0).source());
        }
        refused(Status.ARGUMENT, () -> rank(new RankOptions().withPrior(Prior.of(1, 2))));
        refused(Status.ARGUMENT, () -> rank(new RankOptions().withPrior(Prior.of())));
        refused(Status.ARGUMENT, () -> rank(new RankOptions().withPrior(Prior.of(values).withWeight(Double.NaN))));
        refused(
                Status.ARGUMENT,
                () -> rec.rank(store, history, null, new RankOptions().withPrior(Prior.of(values))));
        Map<String, Double> hole = new HashMap<>();
        hole.put("v1", null);
        refused(Status.ARGUMENT, () -> Prior.of(hole));
    }

    @Test
    void reasons() {
        try (Ranking ranking = rank(new RankOptions())) {
            Explanation why = ranking.get(0).explain();
            assertEquals(List.of("v0", "v1", "v2"), why.history());
            assertEquals(3, why.matrix().length);
            assertEquals(ranking.scores()[0], why.score(), 0);
            assertTrue(why.sentence().contains("“"), why.sentence());
            assertArrayEquals(ranking.get(4).explain().matrix()[2], ranking.explain(4).matrix()[2]);
            refused(Status.ARGUMENT, () -> ranking.explain(VIDEOS));
            refused(Status.ARGUMENT, () -> ranking.explain(-1));
        }
    }

    @Test
    void taste() {
        JsonObject golden = Testing.golden();
        Map<String, byte[]> tokens = Testing.goldenFeatures(golden);
        try (Store known = new Store(rec);
                History past = new History(rec)) {
            tokens.forEach((id, features) -> known.put(new Video(id, features)));
            past.add(new Event("video0", tokens.get("video0")));
            past.add(new Event("video1", tokens.get("video1")).withLiked(false));
            TasteSummary taste = rec.taste(known, past);
            assertEquals(2, taste.events());
            assertEquals(List.of("video0"), taste.likes().get(0).videos());
            assertEquals(1.0, taste.likes().get(0).share(), 1e-9);
            assertEquals(List.of("video1"), taste.avoids());
            double sum = 0;
            for (double trust : taste.layers()) {
                sum += trust;
            }
            assertEquals(1.0, sum, 1e-9);
            assertTrue(taste.sentence().contains("video0"), taste.sentence());
        }
        TasteSummary nothing = rec.taste(null, null);
        assertEquals(0, nothing.events());
        assertEquals(List.of(), nothing.likes());
        Instant tooLate = Instant.parse("+12000-01-01T00:00:00Z");
        refused(Status.ARGUMENT, () -> rec.taste(store, history, tooLate));
    }
}
