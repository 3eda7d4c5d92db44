package linkedout.edge;

import java.nio.ByteBuffer;
import org.jetbrains.annotations.NotNull;

/**
 * Frames of a video in order of time, upright, at any size: uint8 [count][height][width][3], RGB, without gaps. They are
 * not copied: leave them alone while they are used.
 */
public final class Frames {
    final byte[] array; // or
    final ByteBuffer direct;
    final int offset;
    final int size;
    final int count;
    final int height;
    final int width;

    public Frames(@NotNull byte[] rgb, int count, int height, int width) {
        this(ByteBuffer.wrap(LinkedOutException.need(rgb, "rgb")), count, height, width);
    }

    /** What lies between the buffer's position and its limit, now. A direct buffer reaches the encoder without a copy. */
    public Frames(@NotNull ByteBuffer rgb, int count, int height, int width) {
        ByteBuffer buffer = LinkedOutException.need(rgb, "rgb");
        if (!buffer.isDirect() && !buffer.hasArray()) {
            byte[] copy = new byte[buffer.remaining()]; // of a read-only one
            buffer.duplicate().get(copy);
            buffer = ByteBuffer.wrap(copy);
        }
        array = buffer.isDirect() ? null : buffer.array();
        direct = buffer.isDirect() ? buffer.duplicate() : null;
        offset = buffer.position() + (buffer.isDirect() ? 0 : buffer.arrayOffset());
        size = buffer.remaining();
        this.count = count;
        this.height = height;
        this.width = width;
    }
}
