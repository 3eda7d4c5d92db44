package linkedout.edge;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/**
 * The Java side of benchmarks/bindings.py: does one thing for each word on stdin, and answers how long it took.
 *
 * <p>BUNDLE ONNXRUNTIME PACK FRAMES HISTORY. PACK holds the videos: the first HISTORY of them were watched, the others are
 * ranked. FRAMES: uint8 [7][144][144][3].
 */
final class Bench {
    private Bench() {}

    public static void main(String[] arguments) throws IOException {
        LoadOptions options = new LoadOptions().withOnnxruntime(arguments[1]).withThreads(1);
        Frames frames = new Frames(Files.readAllBytes(Path.of(arguments[3])), 7, 144, 144);
        int watched = Integer.parseInt(arguments[4]);
        try (Recommender rec = Recommender.load(arguments[0], options);
                Store store = new Store(rec);
                History history = new History(rec)) {
            store.readPack(Files.readAllBytes(Path.of(arguments[2])));
            List<String> candidates = new ArrayList<>();
            for (int n = 0; n < store.size(); n++) {
                Video video = store.get(n);
                if (n < watched) {
                    history.add(new Event(video.id(), video.features()));
                } else {
                    candidates.add(video.id());
                }
            }
            System.out.println("ready");
            BufferedReader words = new BufferedReader(new InputStreamReader(System.in));
            for (String word; (word = words.readLine()) != null; ) {
                if (word.equals("event")) { // not timed: the user is fitted anew by the next ranking
                    history.add(new Event(history.get(0).id()));
                    System.out.println(0);
                    continue;
                }
                long start = System.nanoTime();
                if (word.equals("encode")) {
                    rec.encode(frames, "Two cats");
                } else {
                    try (Ranking ranking = rec.rank(store, history, candidates)) {
                        ranking.get(0);
                    }
                }
                System.out.println((System.nanoTime() - start) / 1e9);
            }
        }
    }
}
