package linkedout.edge;

import static linkedout.edge.Testing.features;
import static linkedout.edge.Testing.refused;
import static linkedout.edge.Testing.setting;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.lang.reflect.Array;
import java.lang.reflect.Field;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.api.function.Executable;

/** What a caller can get wrong: exceptions with a message, never a crash. */
class MisuseTest {
    private Recommender rec;
    private Store store;
    private History history;

    @BeforeEach
    void open() {
        rec = Testing.withoutEncoder();
        store = new Store(rec);
        history = new History(rec);
        store.put(new Video("a", features(1)));
        history.add(new Event("a", features(1)));
    }

    @AfterEach
    void close() {
        history.close();
        store.close();
        rec.close();
    }

    @Test
    void nulls() {
        List<Executable> calls = List.of(
                () -> Recommender.load(null),
                () -> Recommender.load(setting("BUNDLE"), null),
                () -> rec.encode(null),
                () -> rec.prepareFrames(null),
                () -> rec.tokenize(null),
                () -> rec.rank(null, history),
                () -> rec.rank(store, history, Arrays.asList("a", null)),
                () -> rec.rank(store, history, null, null),
                () -> new Store(null),
                () -> store.put(null),
                () -> store.find(null),
                () -> store.remove(null),
                () -> store.remove(Arrays.asList("a", null)),
                () -> store.readPack(null),
                () -> store.writePack(null),
                () -> new History(null),
                () -> History.load(null, new byte[0]),
                () -> History.load(rec, null),
                () -> history.add(null),
                () -> history.forget(null),
                () -> history.forgetSince(null),
                () -> new Video(null, features(1)),
                () -> new Video("a", null),
                () -> new Video("a", features(1), null, null),
                () -> new Event(null),
                () -> new Event("a", null),
                () -> new Frames((byte[]) null, 1, 1, 1),
                () -> new Frames((ByteBuffer) null, 1, 1, 1),
                () -> Prior.of((double[]) null));
        for (Executable call : calls) {
            LinkedOutException e = refused(Status.ARGUMENT, call);
            assertTrue(e.getMessage().contains("null"), e.getMessage());
        }
        assertEquals(1, store.size());
        assertEquals(1, history.size());
    }

    /** Not even native code, called past all checks of Java, crashes on nothing. */
    @Test
    void nativeCodeTakesNulls() throws IllegalAccessException {
        int called = 0;
        for (Method method : Native.class.getDeclaredMethods()) {
            if (!Modifier.isNative(method.getModifiers())) {
                continue;
            }
            for (Handle handle : new Handle[] {null, rec, store, history}) {
                Object[] arguments = new Object[method.getParameterCount()];
                for (int n = 0; n < arguments.length; n++) {
                    Class<?> type = method.getParameterTypes()[n];
                    if (type.isPrimitive()) {
                        arguments[n] = Array.get(Array.newInstance(type, 1), 0);
                    } else if (type == Handle.class) {
                        arguments[n] = handle;
                    }
                }
                try {
                    method.invoke(null, arguments);
                } catch (InvocationTargetException e) {
                    assertTrue(e.getCause() instanceof LinkedOutException, method + ": " + e.getCause());
                }
                called++;
            }
        }
        assertTrue(called > 100, "only " + called);
        assertEquals("a", store.get(0).id());
    }

    @Test
    void closedOnes() {
        Ranking ranking = rec.rank(store, history, List.of("a"));
        Frames frames = new Frames(new byte[12], 1, 2, 2);
        byte[] saved = history.save();
        rec.close();
        store.close();
        history.close();
        ranking.close();
        List<Executable> calls = List.of(
                () -> rec.encode(frames),
                () -> rec.prepareFrames(frames),
                () -> rec.chooseFrames(9),
                () -> rec.tokenize("a"),
                () -> rec.rank(store, history),
                () -> rec.taste(store, history),
                () -> new Store(rec),
                () -> new History(rec),
                () -> History.load(rec, saved),
                () -> store.put(new Video("b", features(2))),
                () -> store.remove(List.of("a")),
                () -> store.size(),
                () -> store.find("a"),
                () -> store.get(0),
                () -> store.readPack(saved),
                () -> store.writePack(),
                () -> history.add(new Event("a")),
                () -> history.forget("a"),
                () -> history.forgetSince(Instant.EPOCH),
                () -> history.clear(),
                () -> history.size(),
                () -> history.get(0),
                () -> history.save(),
                () -> ranking.get(0).explain());
        for (Executable call : calls) {
            refused(Status.CLOSED, call);
        }
        rec.close();
        store.close();
        history.close();
        ranking.close();
        assertEquals("a", ranking.get(0).id()); // what was read remains
        assertEquals(816, rec.info().featuresSize());
    }

    @Test
    void inAnyOrder() {
        Ranking ranking;
        try (Recommender other = Testing.withoutEncoder()) {
            ranking = other.rank(store, history, List.of("a"));
        }
        store.close();
        assertEquals(1, ranking.get(0).explain().history().size());
        ranking.close();
    }

    @Test
    void ofAnotherTokenSpace(@TempDir Path folder) throws IOException {
        Path source = Path.of(setting("BUNDLE"));
        Files.createDirectories(folder.resolve("onnx/int8"));
        Files.createDirectories(folder.resolve("onnx/int4"));
        for (String name : List.of("tokenizer.json", "onnx/int8/encoder.onnx", "onnx/int4/encoder.onnx")) {
            Files.copy(source.resolve(name), folder.resolve(name));
        }
        String manifest = Files.readString(source.resolve("manifest.json"));
        Files.writeString(
                folder.resolve("manifest.json"), manifest.replace(rec.info().tokenSpace(), "0123456789abcdef".repeat(4)));
        try (Recommender other = Recommender.load(folder.toString(), new LoadOptions().withoutEncoder())) {
            refused(Status.TOKEN_SPACE, () -> other.rank(store, null));
            refused(Status.TOKEN_SPACE, () -> other.taste(null, history));
            refused(Status.TOKEN_SPACE, () -> History.load(other, history.save()));
            try (Store empty = new Store(other)) {
                refused(Status.TOKEN_SPACE, () -> empty.readPack(store.writePack()));
            }
        }
        Files.writeString(folder.resolve("manifest.json"), "{");
        refused(Status.BUNDLE_CORRUPT, () -> Recommender.load(folder.toString()));
    }

    @Test
    void loading() {
        String bundle = setting("BUNDLE");
        LoadOptions plain = new LoadOptions().withoutEncoder();
        refused(Status.BUNDLE_NOT_FOUND, () -> Recommender.load("no/such/folder"));
        refused(Status.BUNDLE_NOT_FOUND, () -> Recommender.load("no\0such"));
        refused(Status.ARGUMENT, () -> Recommender.load(""));
        refused(Status.ARGUMENT, () -> Recommender.load(bundle, plain.withPrecision("int9")));
        refused(Status.ARGUMENT, () -> Recommender.load(bundle, plain.withThreads(-1)));
        LoadOptions missing = new LoadOptions().withOnnxruntime("no/such/library.so");
        refused(Status.MISSING_DEPENDENCY, () -> Recommender.load(bundle, missing));
        refused(Status.MISSING_DEPENDENCY, () -> rec.encode(new Frames(new byte[12], 1, 2, 2)));
    }

    @Test
    void wrongSizes() {
        for (int size : new int[] {0, 1, 815, 817, 100_000}) {
            refused(Status.ARGUMENT, () -> store.put(new Video("b", new byte[size])));
            refused(Status.ARGUMENT, () -> history.add(new Event("b", new byte[size])));
        }
        byte[] rgb = new byte[2 * 4 * 5 * 3];
        int[][] shapes = {{2, 4, 6}, {1, 4, 5}, {0, 4, 5}, {-2, -4, 5}, {2, 4, -5}, {1 << 30, 1 << 30, 1 << 30}};
        for (int[] shape : shapes) {
            Frames frames = new Frames(rgb, shape[0], shape[1], shape[2]);
            refused(Status.INVALID_FRAMES, () -> rec.prepareFrames(frames));
        }
        refused(Status.INVALID_FRAMES, () -> rec.prepareFrames(new Frames(new byte[0], 0, 0, 0)));
        refused(Status.INVALID_FRAMES, () -> rec.prepareFrames(new Frames(ByteBuffer.allocateDirect(0), 1, 1, 1)));
        refused(Status.ARGUMENT, () -> rec.chooseFrames(0));
        refused(Status.ARGUMENT, () -> rec.chooseFrames(-1));
        assertEquals(7, rec.chooseFrames(Long.MAX_VALUE / 16).length);
        for (int position : new int[] {1, -1, Integer.MIN_VALUE, Integer.MAX_VALUE}) {
            refused(Status.ARGUMENT, () -> store.get(position));
            refused(Status.ARGUMENT, () -> history.get(position));
        }
        for (double watched : new double[] {-0.1, 1.5, Double.NaN, Double.POSITIVE_INFINITY}) {
            refused(Status.ARGUMENT, () -> history.add(new Event("a").withWatched(watched)));
        }
        refused(Status.ARGUMENT, () -> history.add(new Event("a").withAt(Instant.MAX)));
        assertThrows(IndexOutOfBoundsException.class, () -> rec.rank(store, history).get(1));
        assertEquals(1, history.size());
        assertEquals(1, store.size());
    }

    @Test
    void texts() {
        String nul = "a\0b";
        String balloon = "🎈";
        store.put(new Video(nul, features(2), "t\0u"));
        store.put(new Video(balloon, features(3), balloon));
        assertEquals(nul, store.get(1).id());
        assertEquals("t\0u", store.get(1).title());
        assertEquals(1, store.find(nul));
        assertEquals(2, store.find(balloon));
        assertEquals(balloon, store.get(2).id());
        assertEquals(balloon, store.get(2).title());
        try (Ranking ranking = rec.rank(store, history)) { // ids that come out of the core
            assertEquals(Set.of(nul, balloon), Set.copyOf(ranking.ids()));
        }
        assertEquals(1, store.remove(List.of(nul)));

        String longest = "é".repeat(65_536);
        store.put(new Video(longest, features(4)));
        assertEquals(longest, store.get(2).id());
        refused(Status.ARGUMENT, () -> store.put(new Video(longest + "x", features(4))));
        refused(Status.ARGUMENT, () -> store.put(new Video("", features(4))));
        refused(Status.ARGUMENT, () -> store.find(""));
        refused(Status.ARGUMENT, () -> rec.rank(store, history, List.of("")));
    }

    @Test
    void halfACharacterIsNoIdAndEqualsNone() {
        store.put(new Video("x?", features(2)));
        history.add(new Event("x?", features(2)));
        for (String half : List.of("x\ud83d", "x\udf88", "\udf88\ud83cx")) {
            refused(Status.ARGUMENT, () -> store.put(new Video(half, features(3))));
            refused(Status.ARGUMENT, () -> history.add(new Event(half, features(3))));
            assertEquals(-1, store.find(half));
            assertEquals(0, store.remove(List.of(half)));
            assertEquals(0, history.forget(half));
            refused(Status.NOT_FOUND, () -> store.writePack(List.of(half)));
            try (Ranking ranking = rec.rank(store, null, List.of(half, "x?"))) {
                assertEquals(List.of("x?"), ranking.ids());
                assertEquals(half, ranking.failed().get(0).id());
            }
        }
        store.put(new Video("y", features(4), "cut \ud83d, \ud83c\udf88 whole"));
        assertEquals("cut ?, 🎈 whole", store.get(store.find("y")).title());
        assertArrayEquals(rec.tokenize("cut ?"), rec.tokenize("cut \ud83d"));
    }

    @Test
    void severalThreadsOneOfWhichCloses() throws Exception {
        Set<Status> allowed = EnumSet.of(Status.CLOSED, Status.ARGUMENT, Status.NOT_FOUND, Status.PACK);
        AtomicInteger done = new AtomicInteger();
        AtomicInteger closed = new AtomicInteger();
        byte[] pack = store.writePack();
        byte[] saved = history.save();
        List<Callable<?>> calls = List.of(
                () -> rec.rank(store, history).size(),
                () -> {
                    store.put(new Video("b", features(2)));
                    return store.remove(List.of("b"));
                },
                () -> store.get(store.size() - 1).features(),
                () -> store.readPack(pack) + store.writePack().length,
                () -> {
                    history.add(new Event("a").withWatched(0.5));
                    return history.get(history.size() - 1);
                },
                () -> history.save().length + history.forget("b"),
                () -> {
                    try (History other = History.load(rec, saved);
                            Ranking ranking = rec.rank(store, other, List.of("a"))) {
                        return ranking.get(0).explain().sentence();
                    }
                },
                () -> rec.taste(store, history).sentence());
        ExecutorService threads = Executors.newFixedThreadPool(calls.size());
        List<Future<?>> running = new ArrayList<>();
        for (Callable<?> call : calls) {
            running.add(threads.submit(() -> {
                while (closed.get() < 20) {
                    try {
                        call.call();
                        done.incrementAndGet();
                    } catch (LinkedOutException e) {
                        assertTrue(allowed.contains(e.status()), e.status() + ": " + e.getMessage());
                        closed.addAndGet(e.status() == Status.CLOSED ? 1 : 0);
                    }
                }
                return null;
            }));
        }
        while (done.get() < 500) {
            Thread.sleep(1);
            for (Future<?> one : running) {
                if (one.isDone()) {
                    one.get(); // none ends before the others have closed
                }
            }
        }
        store.close();
        rec.close();
        history.close();
        for (Future<?> one : running) {
            one.get();
        }
        threads.shutdown();
    }

    @Test
    void whatIsNeverClosedIsClosedOnceItWasCollected() throws Exception {
        Class<?> owner = Class.forName("linkedout.edge.Handle$Owner");
        Field field = owner.getDeclaredField("OPEN");
        field.setAccessible(true);
        Collection<?> open = (Collection<?>) field.get(null);
        int before = open.size();
        for (int n = 0; n < 300; n++) {
            rec.rank(store, history);
        }
        for (int round = 0; round < 200 && open.size() > before + 10; round++) {
            System.gc();
            Thread.sleep(20);
            new Store(rec).close();
        }
        assertTrue(open.size() <= before + 10, open.size() + " are open");
        assertEquals(1, store.size());
    }
}
