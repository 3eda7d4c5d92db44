package linkedout.edge;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.awt.image.BufferedImage;
import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import javax.imageio.ImageIO;
import org.junit.jupiter.api.function.Executable;

/** What the tests share: settings, the golden vectors, made-up features. */
final class Testing {
    private Testing() {}

    /** LINKEDOUT_BUNDLE, LINKEDOUT_GOLDEN or LINKEDOUT_ONNXRUNTIME of the environment. */
    static String setting(String name) {
        String value = System.getenv("LINKEDOUT_" + name);
        assertTrue(value != null && !value.isEmpty(), "LINKEDOUT_" + name + " is not set");
        return value;
    }

    static Recommender withoutEncoder() {
        return Recommender.load(setting("BUNDLE"), new LoadOptions().withPrecision("int8").withoutEncoder());
    }

    static Recommender withEncoder() {
        LoadOptions options = new LoadOptions().withPrecision("int8").withThreads(1);
        return Recommender.load(setting("BUNDLE"), options.withOnnxruntime(setting("ONNXRUNTIME")));
    }

    static LinkedOutException refused(Status status, Executable call) {
        LinkedOutException e = assertThrows(LinkedOutException.class, call);
        assertEquals(status, e.status(), e.getMessage());
        assertTrue(e.getMessage().length() > 10, "an error says too little: " + e.getMessage());
        return e;
    }

    /** Features that no model made, the same for the same seed. */
    static byte[] features(int seed) {
        byte[] out = new byte[816];
        new Random(seed).nextBytes(out);
        ByteBuffer scales = ByteBuffer.wrap(out).order(ByteOrder.LITTLE_ENDIAN);
        for (int n = 0; n < 12; n++) {
            scales.putFloat(768 + n * Float.BYTES, 0.02f + 0.001f * n);
        }
        return out;
    }

    // The golden vectors.

    static byte[] file(String name) {
        try {
            return Files.readAllBytes(Path.of(setting("GOLDEN"), name));
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    static JsonObject json(Path path) {
        try {
            return JsonParser.parseString(Files.readString(path)).getAsJsonObject();
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    static JsonObject golden() {
        return json(Path.of(setting("GOLDEN"), "golden.json"));
    }

    static List<JsonObject> objects(JsonElement array) {
        List<JsonObject> out = new ArrayList<>();
        array.getAsJsonArray().forEach(o -> out.add(o.getAsJsonObject()));
        return out;
    }

    static List<String> strings(JsonElement array) {
        List<String> out = new ArrayList<>();
        array.getAsJsonArray().forEach(s -> out.add(s.getAsString()));
        return out;
    }

    static int[] ints(JsonElement array) {
        JsonArray given = array.getAsJsonArray();
        int[] out = new int[given.size()];
        for (int n = 0; n < out.length; n++) {
            out[n] = given.get(n).getAsInt();
        }
        return out;
    }

    /** Numbers of nested arrays, in order. */
    static List<Double> flat(JsonElement array) {
        List<Double> out = new ArrayList<>();
        for (JsonElement e : array.getAsJsonArray()) {
            if (e.isJsonArray()) {
                out.addAll(flat(e));
            } else {
                out.add(e.getAsDouble());
            }
        }
        return out;
    }

    /** Id → features of the golden videos. */
    static Map<String, byte[]> goldenFeatures(JsonObject golden) {
        Map<String, byte[]> out = new LinkedHashMap<>();
        for (JsonObject video : objects(golden.get("videos"))) {
            List<Double> tokens = flat(video.get("tokens"));
            List<Double> scales = flat(video.get("scales"));
            ByteBuffer bytes = ByteBuffer.allocate(tokens.size() + scales.size() * Float.BYTES);
            bytes.order(ByteOrder.LITTLE_ENDIAN);
            tokens.forEach(t -> bytes.put(t.byteValue()));
            scales.forEach(s -> bytes.putFloat(s.floatValue()));
            out.put(video.get("id").getAsString(), bytes.array());
        }
        return out;
    }

    static String title(JsonObject video) {
        String title = video.get("title").getAsString();
        return title.isEmpty() ? null : title;
    }

    /** RGB of a picture whose frames are stacked from top to bottom. */
    static byte[] pixels(BufferedImage image) {
        int[] argb = image.getRGB(0, 0, image.getWidth(), image.getHeight(), null, 0, image.getWidth());
        byte[] out = new byte[argb.length * 3];
        for (int n = 0; n < argb.length; n++) {
            out[3 * n] = (byte) (argb[n] >> 16);
            out[3 * n + 1] = (byte) (argb[n] >> 8);
            out[3 * n + 2] = (byte) argb[n];
        }
        return out;
    }

    static BufferedImage image(String name) {
        try {
            return ImageIO.read(new File(setting("GOLDEN"), name));
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    static Frames frames(JsonObject video) {
        BufferedImage image = image(video.get("frames").getAsString());
        int count = video.get("frame_count").getAsInt();
        return new Frames(pixels(image), count, image.getHeight() / count, image.getWidth());
    }
}
