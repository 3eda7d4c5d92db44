// Encode raw frames, note that one video was watched, rank the others, say why.
//
//     java -cp linkedout-edge.jar -Djava.library.path=FOLDER Simple.java BUNDLE ONNXRUNTIME FRAMES...
//
// FOLDER holds liblinkedout_edge_jni.so, BUNDLE is a folder such as linkedout_edge/bundles/base, ONNXRUNTIME the path of
// libonnxruntime.so. Each of FRAMES is a file of raw RGB frames of 144 x 144, such as
//
//     ffmpeg -i cats.mp4 -vf fps=7/SECONDS,scale=144:144 -pix_fmt rgb24 -f rawvideo cats.rgb
//
// The first is watched, the others are ranked.
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import linkedout.edge.Event;
import linkedout.edge.Frames;
import linkedout.edge.History;
import linkedout.edge.LinkedOutException;
import linkedout.edge.LoadOptions;
import linkedout.edge.Ranked;
import linkedout.edge.Ranking;
import linkedout.edge.Recommender;
import linkedout.edge.Store;
import linkedout.edge.Video;

final class Simple {
    public static void main(String[] arguments) throws IOException {
        if (arguments.length < 4) {
            System.err.println("usage: Simple BUNDLE ONNXRUNTIME WATCHED CANDIDATE...");
            System.exit(2);
        }
        LoadOptions options = new LoadOptions().withOnnxruntime(arguments[1]);
        try (Recommender rec = Recommender.load(arguments[0], options);
                Store store = new Store(rec);
                History history = new History(rec)) {
            for (int n = 2; n < arguments.length; n++) {
                byte[] rgb = Files.readAllBytes(Path.of(arguments[n]));
                byte[] features = rec.encode(new Frames(rgb, rgb.length / (144 * 144 * 3), 144, 144));
                if (n == 2) {
                    history.add(new Event(arguments[n], features));
                } else {
                    store.put(new Video(arguments[n], features));
                }
            }
            try (Ranking ranking = rec.rank(store, history)) {
                for (Ranked r : ranking) {
                    System.out.println(r.rank() + "  " + r.score() + "  " + r.id() + "  " + r.explain());
                }
            }
        } catch (LinkedOutException e) {
            System.err.println(e.status() + ": " + e.getMessage());
            System.exit(1);
        }
    }
}
