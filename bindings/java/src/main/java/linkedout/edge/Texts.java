package linkedout.edge;

import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;

/**
 * Text on its way to and from native code: UTF-8, as bytes, because JNI's own strings are "modified" UTF-8. A list is one
 * array, so that it crosses at once: how many, then of each its length and its bytes.
 */
final class Texts {
    private Texts() {}

    /** UTF-8; null stays null. Half a character becomes three bytes that are no UTF-8, so that it equals no other text. */
    static byte[] encode(String text) {
        if (text == null) {
            return null;
        }
        return hasHalf(text) ? encodeHalves(text) : text.getBytes(StandardCharsets.UTF_8);
    }

    static String decode(byte[] text) {
        return new String(text, StandardCharsets.UTF_8);
    }

    /** @param name what the list is called, for the message about a null in it */
    static byte[] encode(Collection<String> texts, String name) {
        List<byte[]> encoded = new ArrayList<>(texts.size());
        long size = Integer.BYTES;
        for (String text : texts) {
            if (text == null) {
                throw LinkedOutException.argument(name + "[" + encoded.size() + "] is null: each has to be an id");
            }
            byte[] bytes = encode(text);
            encoded.add(bytes);
            size += Integer.BYTES + bytes.length;
        }
        if (size > Integer.MAX_VALUE - 8) {
            throw LinkedOutException.argument(name + " has more than 2 GB of text");
        }
        ByteBuffer out = ByteBuffer.allocate((int) size).putInt(encoded.size());
        for (byte[] text : encoded) {
            out.putInt(text.length).put(text);
        }
        return out.array();
    }

    static List<String> decodeList(byte[] texts) {
        ByteBuffer in = ByteBuffer.wrap(texts);
        int count = in.getInt(0);
        List<String> out = new ArrayList<>(count);
        int at = Integer.BYTES;
        for (int n = 0; n < count; n++) {
            int length = in.getInt(at);
            at += Integer.BYTES;
            out.add(new String(texts, at, length, StandardCharsets.UTF_8));
            at += length;
        }
        return out;
    }

    private static boolean isHalf(String text, int at) {
        return Character.isSurrogate(text.charAt(at)) && Character.charCount(text.codePointAt(at)) == 1;
    }

    private static boolean hasHalf(String text) {
        for (int at = 0; at < text.length(); at++) {
            if (isHalf(text, at)) {
                return true;
            }
            if (Character.isHighSurrogate(text.charAt(at))) {
                at++;
            }
        }
        return false;
    }

    private static byte[] encodeHalves(String text) {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        for (int at = 0; at < text.length(); ) {
            int length = Character.charCount(text.codePointAt(at));
            if (isHalf(text, at)) {
                char half = text.charAt(at);
                out.write(0xE0 | half >> 12);
                out.write(0x80 | (half >> 6 & 0x3F));
                out.write(0x80 | (half & 0x3F));
            } else {
                byte[] whole = text.substring(at, at + length).getBytes(StandardCharsets.UTF_8);
                out.write(whole, 0, whole.length);
            }
            at += length;
        }
        return out.toByteArray();
    }
}
