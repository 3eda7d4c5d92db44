package linkedout.edge;

import static linkedout.edge.Testing.features;
import static linkedout.edge.Testing.file;
import static linkedout.edge.Testing.flat;
import static linkedout.edge.Testing.frames;
import static linkedout.edge.Testing.ints;
import static linkedout.edge.Testing.objects;
import static linkedout.edge.Testing.refused;
import static linkedout.edge.Testing.setting;
import static linkedout.edge.Testing.strings;
import static linkedout.edge.Testing.title;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;

/** All golden vectors of bindings/conformance. */
class GoldenTest {
    private static JsonObject golden;
    private static Map<String, byte[]> tokens;
    private static Recommender rec;

    @BeforeAll
    static void open() {
        golden = Testing.golden();
        tokens = Testing.goldenFeatures(golden);
        rec = Testing.withoutEncoder();
    }

    @AfterAll
    static void close() {
        rec.close();
    }

    private static double tolerance(String name) {
        return golden.getAsJsonObject("tolerance").get(name).getAsDouble();
    }

    @Test
    void theyBelongToThisBundle() {
        JsonObject bundle = golden.getAsJsonObject("bundle");
        assertEquals(bundle.get("token_space").getAsString(), rec.info().tokenSpace());
        assertEquals(bundle.get("name").getAsString(), rec.info().bundle());
        assertEquals(bundle.get("precision").getAsString(), rec.info().precision());
        assertEquals(bundle.get("title_tokens").getAsInt(), rec.info().titleTokens());
        JsonObject manifest = Testing.json(Path.of(setting("BUNDLE"), "manifest.json"));
        JsonObject encoder = manifest.getAsJsonObject("precisions")
                .getAsJsonObject("int8")
                .getAsJsonObject("files")
                .getAsJsonObject("encoder");
        JsonElement sha256 = bundle.getAsJsonObject("sha256").get(encoder.get("path").getAsString());
        assertEquals(encoder.get("sha256"), sha256);
    }

    @Test
    void titles() {
        for (JsonObject row : objects(golden.get("titles"))) {
            assertArrayEquals(ints(row.get("ids")), rec.tokenize(row.get("text").getAsString()), row.toString());
        }
        for (JsonObject video : objects(golden.get("videos"))) {
            int[] ids = rec.tokenize(video.get("title").getAsString());
            int[] read = Arrays.copyOf(ids, Math.min(ids.length, rec.info().titleTokens()));
            assertArrayEquals(ints(video.get("title_ids")), read, video.get("id").toString());
        }
    }

    @Test
    void halfACharacterInATitle() {
        for (JsonObject row : objects(golden.get("surrogates"))) {
            String half = JsonParser.parseString(row.get("json").getAsString()).getAsString();
            assertTrue(half.chars().anyMatch(c -> Character.isSurrogate((char) c)), row.toString());
            assertArrayEquals(ints(row.get("ids")), rec.tokenize(half), row.toString());
            assertArrayEquals(ints(row.get("ids")), rec.tokenize(row.get("read_as").getAsString()), row.toString());
        }
    }

    @Test
    void preparedFrames() {
        int videos = 0;
        for (JsonObject video : objects(golden.get("videos"))) {
            if (!video.has("prepared")) {
                continue;
            }
            long[] chosen = Arrays.stream(ints(video.get("chosen"))).asLongStream().toArray();
            assertArrayEquals(chosen, rec.chooseFrames(video.get("frame_count").getAsInt()));
            byte[] wanted = Testing.pixels(Testing.image(video.get("prepared").getAsString()));
            byte[] got = rec.prepareFrames(frames(video));
            assertEquals(wanted.length, got.length);
            for (int n = 0; n < got.length; n++) {
                assertTrue(Math.abs((got[n] & 0xFF) - (wanted[n] & 0xFF)) <= tolerance("pixel"));
            }
            videos++;
        }
        assertTrue(videos >= 2);
    }

    @TestFactory
    Stream<DynamicTest> fromTokens() {
        double limit = tolerance("score");
        return objects(golden.get("cases")).stream()
                .map(one -> DynamicTest.dynamicTest(one.get("name").getAsString(), () -> check(one, tokens, limit, true)));
    }

    @Test
    void fromFrames() throws IOException {
        Map<String, byte[]> features = new HashMap<>();
        boolean alike;
        double steps = 0;
        try (Recommender encoder = Testing.withEncoder()) {
            alike = roundsAlike(encoder);
            for (JsonObject video : objects(golden.get("videos"))) {
                String id = video.get("id").getAsString();
                features.put(id, encoder.encode(frames(video), title(video)));
                steps = Math.max(steps, compareTokens(tokens.get(id), features.get(id)));
            }
        }
        if (alike) {
            assertTrue(steps <= tolerance("token_steps"), "tokens are up to " + steps + " steps off");
        }
        double limit = tolerance(alike ? "score" : "score_from_frames");
        for (JsonObject one : objects(golden.get("cases"))) {
            check(one, features, limit, false);
        }
    }

    /** How many int8 steps tokens are apart at most; their cosine is checked. */
    private static double compareTokens(byte[] wanted, byte[] got) {
        Info info = rec.info();
        int width = info.tokenWidth();
        int count = info.layers() * info.tokensPerLayer();
        ByteBuffer a = ByteBuffer.wrap(wanted).order(ByteOrder.LITTLE_ENDIAN);
        ByteBuffer b = ByteBuffer.wrap(got).order(ByteOrder.LITTLE_ENDIAN);
        double steps = 0;
        for (int token = 0; token < count; token++) {
            double aScale = a.getFloat(count * width + token * Float.BYTES);
            double bScale = b.getFloat(count * width + token * Float.BYTES);
            double dot = 0;
            double aa = 0;
            double bb = 0;
            for (int d = 0; d < width; d++) {
                double x = a.get(token * width + d) * aScale;
                double y = b.get(token * width + d) * bScale;
                dot += x * y;
                aa += x * x;
                bb += y * y;
                steps = Math.max(steps, Math.abs(x - y) / aScale);
            }
            assertTrue(dot / Math.sqrt(aa * bb) >= tolerance("token_cosine"));
        }
        return steps;
    }

    /** Whether ONNX Runtime rounds here as where the vectors were made. */
    private static boolean roundsAlike(Recommender encoder) throws IOException {
        JsonObject made = golden.getAsJsonObject("made_with");
        return encoder.info().backend().equals("onnxruntime " + made.get("onnxruntime").getAsString())
                && made.get("architecture").getAsString().equals("x86-64")
                && instructionSet().equals(new TreeSet<>(strings(made.get("instruction_set"))));
    }

    private static Set<String> instructionSet() throws IOException {
        Map<String, String> names = Map.of(
                "avx2", "avx2",
                "avx512f", "avx512f",
                "avx512_vnni", "avx512-vnni",
                "avx_vnni", "avx-vnni",
                "amx_int8", "amx-int8");
        Set<String> out = new TreeSet<>();
        Path cpus = Path.of("/proc/cpuinfo");
        if (Files.exists(cpus) && System.getProperty("os.arch").equals("amd64")) {
            try (Stream<String> lines = Files.lines(cpus)) {
                String flags = lines.filter(line -> line.startsWith("flags")).findFirst().orElse("");
                Arrays.stream(flags.split("\\s+")).filter(names::containsKey).map(names::get).forEach(out::add);
            }
        }
        return out;
    }

    private void check(JsonObject one, Map<String, byte[]> features, double limit, boolean fromTokens) {
        Instant now = Instant.now().truncatedTo(ChronoUnit.HOURS).plusSeconds(600);
        String name = one.get("name").getAsString();
        List<String> candidates = strings(one.get("candidates"));
        List<String> stored = strings(one.get("store"));
        try (Store store = new Store(rec);
                History history = new History(rec)) {
            for (JsonObject video : objects(golden.get("videos"))) {
                String id = video.get("id").getAsString();
                if (stored.contains(id)) {
                    store.put(new Video(id, features.get(id), title(video)));
                }
            }
            for (JsonObject e : objects(one.get("events"))) {
                String id = "video" + e.get("video").getAsInt();
                Event event = new Event(id, features.get(id));
                if (e.has("watched")) {
                    event = event.withWatched(e.get("watched").getAsDouble());
                }
                if (e.has("liked") && !e.get("liked").isJsonNull()) {
                    event = event.withLiked(e.get("liked").getAsBoolean());
                }
                if (e.has("age_hours")) {
                    long age = Math.round(e.get("age_hours").getAsDouble() * 3600e3);
                    event = event.withAt(now.minus(Duration.ofMillis(age)));
                }
                history.add(event);
            }
            try (Ranking ranking = rec.rank(store, history, candidates, new RankOptions().withNow(now))) {
                List<String> order = strings(one.get("order"));
                assertEquals(order.size(), ranking.size(), name);
                assertEquals(List.of(), ranking.failed(), name);
                JsonObject scores = one.getAsJsonObject("scores");
                for (Ranked r : ranking) {
                    double wanted = scores.get(r.id()).getAsDouble();
                    assertEquals(wanted, r.score(), limit, name + ", " + r.id());
                    assertEquals(candidates.get(r.position()), r.id(), name);
                    assertEquals(name.startsWith("cold start"), r.source() == Source.COLD_START, name);
                    if (fromTokens) {
                        double there = scores.get(order.get(r.rank() - 1)).getAsDouble();
                        assertEquals(wanted, there, limit, name + ": the order differs by more than the tolerance");
                        checkReasons(one, ranking, r, limit);
                    }
                }
                if (fromTokens) {
                    TasteSummary taste = rec.taste(store, history, now);
                    List<List<String>> likes = taste.likes().stream()
                            .map(Interest::videos)
                            .collect(Collectors.toList());
                    List<List<String>> wanted = new ArrayList<>();
                    one.getAsJsonArray("likes").forEach(each -> wanted.add(strings(each)));
                    assertEquals(wanted, likes, name);
                    assertEquals(strings(one.get("avoids")), taste.avoids(), name);
                }
                if (fromTokens && name.startsWith("cold start: an empty")) {
                    assertEquals(order, ranking.ids(), name);
                }
            }
        }
    }

    private static void checkReasons(JsonObject one, Ranking ranking, Ranked r, double limit) {
        String what = one.get("name").getAsString() + ", " + r.id();
        List<Double> layers = flat(one.getAsJsonObject("contributions").get(r.id()));
        assertEquals(layers.size(), r.layers().length, what);
        for (int layer = 0; layer < r.layers().length; layer++) {
            assertEquals(layers.get(layer), r.layers()[layer], limit, what);
        }
        Explanation why = r.explain();
        JsonElement matrix = one.getAsJsonObject("explanations").get(r.id());
        assertEquals(matrix.getAsJsonArray().size(), why.matrix().length, what);
        assertEquals(why.matrix().length, why.history().size(), what);
        double sum = why.prior() + why.explored();
        for (int event = 0; event < why.matrix().length; event++) {
            List<Double> row = flat(matrix.getAsJsonArray().get(event));
            assertEquals(row.size(), why.matrix()[event].length, what);
            for (int layer = 0; layer < row.size(); layer++) {
                assertEquals(row.get(layer), why.matrix()[event][layer], limit, what);
                sum += why.matrix()[event][layer];
            }
        }
        assertEquals(r.score(), why.score(), 0, what);
        assertEquals(sum, why.score(), 2 * limit, what + ": the matrix is not the score");
    }

    @TestFactory
    Stream<DynamicTest> errors() {
        return objects(golden.get("errors")).stream()
                .filter(row -> !row.has("candidates") || row.get("candidates").isJsonArray()) // a bare string: a type error
                .map(row -> DynamicTest.dynamicTest(row.get("what").getAsString(), () -> checkError(row)));
    }

    private void checkError(JsonObject row) {
        try (Store store = new Store(rec);
                History history = new History(rec)) {
            store.put(new Video("video0", tokens.get("video0")));
            history.add(new Event("video1", tokens.get("video1")));
            if (row.get("call").getAsString().equals("load")) {
                refused(Status.BUNDLE_NOT_FOUND, () -> Recommender.load(row.get("bundle").getAsString()));
            } else if (row.has("frames_dtype")) {
                Frames floats = new Frames(new byte[8 * 16 * 16 * 3 * Float.BYTES], 8, 16, 16);
                refused(Status.INVALID_FRAMES, () -> rec.prepareFrames(floats));
            } else if (row.has("frames_shape")) {
                Frames gray = new Frames(new byte[8 * 16 * 16], 8, 16, 16);
                refused(Status.INVALID_FRAMES, () -> rec.prepareFrames(gray));
            } else if (row.has("top_k")) {
                refused(Status.ARGUMENT, () -> new RankOptions().withTopK(row.get("top_k").getAsInt()));
            } else if (row.has("watched")) {
                Event event = new Event("video1").withWatched(row.get("watched").getAsDouble());
                refused(Status.ARGUMENT, () -> history.add(event));
            } else {
                List<String> candidates = strings(row.get("candidates"));
                assertEquals("not_found", row.get("failed").getAsString());
                try (Ranking ranking = rec.rank(store, history, candidates)) {
                    assertEquals(0, ranking.size());
                    assertEquals(1, ranking.failed().size());
                    assertEquals(candidates.get(0), ranking.failed().get(0).id());
                    assertEquals(0, ranking.failed().get(0).position());
                    assertEquals(Status.NOT_FOUND, ranking.failed().get(0).status());
                }
            }
        }
    }

    @Test
    void theErrorCasesAreThoseThatAreKnown() {
        assertEquals(7, golden.getAsJsonArray("errors").size(), "a new kind of error: teach checkError about it");
    }

    @Test
    void theFeaturePack() {
        try (Store store = new Store(rec)) {
            byte[] pack = file(golden.getAsJsonObject("files").get("pack").getAsString());
            assertEquals(tokens.size(), store.readPack(pack));
            assertEquals(tokens.size(), store.size());
            for (JsonObject video : objects(golden.get("videos"))) {
                String id = video.get("id").getAsString();
                Video got = store.get(store.find(id));
                assertEquals(id, got.id());
                assertArrayEquals(tokens.get(id), got.features());
            }
            try (Store again = new Store(rec)) {
                again.readPack(store.writePack());
                assertArrayEquals(store.writePack(), again.writePack());
                assertEquals(store.get(3).content(), again.get(3).content());
            }
            for (int length = 0; length < pack.length; length += length < 600 ? 1 : 997) {
                byte[] cut = Arrays.copyOf(pack, length);
                refused(Status.PACK, () -> store.readPack(cut));
            }
        }
    }

    @Test
    void theSavedHistory() {
        JsonObject files = golden.getAsJsonObject("files");
        byte[] saved = file(files.get("history").getAsString());
        try (History history = History.load(rec, saved)) {
            List<JsonObject> events = objects(files.get("events"));
            assertEquals(events.size(), history.size());
            for (int n = 0; n < events.size(); n++) {
                JsonObject wanted = events.get(n);
                Event got = history.get(n);
                String id = wanted.get("id").getAsString();
                assertEquals(id, got.id());
                assertEquals(wanted.get("watched").getAsDouble(), got.watched());
                if (wanted.get("liked").isJsonNull()) {
                    assertNull(got.liked());
                } else {
                    assertEquals(wanted.get("liked").getAsBoolean(), got.liked());
                }
                if (wanted.get("at").isJsonNull()) {
                    assertNull(got.at());
                } else {
                    long micros = Math.round(wanted.get("at").getAsDouble() * 1e6);
                    assertEquals(Instant.EPOCH.plus(micros, ChronoUnit.MICROS), got.at());
                }
                assertArrayEquals(tokens.get(id.equals("video3") ? "video3" : "video4"), got.features());
            }
            try (History again = History.load(rec, history.save())) {
                assertArrayEquals(history.save(), again.save());
            }
            try (Store store = new Store(rec)) {
                refused(Status.PACK, () -> store.readPack(saved));
            }
        }
        for (int length = 0; length < saved.length; length += length < 600 ? 1 : 97) {
            byte[] cut = Arrays.copyOf(saved, length);
            refused(Status.PACK, () -> History.load(rec, cut));
        }
        refused(Status.PACK, () -> History.load(rec, features(1)));
    }
}
