package linkedout.edge.example

import android.content.Context
import android.graphics.Bitmap
import android.graphics.ImageFormat
import android.media.Image
import android.media.MediaMetadataRetriever
import android.net.Uri
import linkedout.edge.Frames
import linkedout.edge.Recommender
import java.io.ByteArrayOutputStream
import java.io.IOException

/**
 * Frames of a video, already resized: one after the other, so that only one is in memory at its full size.
 *
 * Android's decoder gives frames by time, and upright. Each millisecond counts as a frame here, so the same moments are taken
 * as in the other languages.
 */
fun framesOf(rec: Recommender, context: Context, video: Uri): Frames {
    val retriever = MediaMetadataRetriever()
    try {
        retriever.setDataSource(context, video)
        val length = retriever.extractMetadata(MediaMetadataRetriever.METADATA_KEY_DURATION)?.toLongOrNull() ?: 0
        val prepared = ByteArrayOutputStream()
        var count = 0
        for (at in rec.chooseFrames(maxOf(1, length))) {
            val frame = retriever.getFrameAtTime(at * 1000, MediaMetadataRetriever.OPTION_CLOSEST) ?: continue
            prepared.write(rec.prepareFrames(Frames(rgbOf(frame), 1, frame.height, frame.width)))
            frame.recycle()
            count++
        }
        if (count == 0) throw IOException("$video has no frame that can be decoded")
        val side = rec.info().frameSize()
        return Frames(prepared.toByteArray(), count, side, side)
    } finally {
        retriever.release()
    }
}

/** RGB bytes of a bitmap, [height][width][3]. */
fun rgbOf(bitmap: Bitmap): ByteArray {
    val argb = IntArray(bitmap.width * bitmap.height)
    bitmap.getPixels(argb, 0, bitmap.width, 0, 0, bitmap.width, bitmap.height)
    val out = ByteArray(argb.size * 3)
    for (n in argb.indices) {
        out[3 * n] = (argb[n] shr 16).toByte()
        out[3 * n + 1] = (argb[n] shr 8).toByte()
        out[3 * n + 2] = argb[n].toByte()
    }
    return out
}

/**
 * RGB bytes of an image that a camera or a MediaCodec wrote into an ImageReader (YUV_420_888), [height][width][3].
 *
 * Colors as HD video has them: BT.709, limited range. An image is as the sensor or the decoder gave it: turn it upright
 * first if it is not.
 */
fun rgbOf(image: Image): ByteArray {
    require(image.format == ImageFormat.YUV_420_888) { "YUV_420_888 is needed, not format ${image.format}" }
    val (luma, cb, cr) = image.planes
    val crop = image.cropRect
    val out = ByteArray(crop.width() * crop.height() * 3)
    var to = 0
    for (row in crop.top until crop.bottom) {
        for (column in crop.left until crop.right) {
            val y = 1.1644f * (luma.at(row, column) - 16)
            val u = cb.at(row / 2, column / 2) - 128
            val v = cr.at(row / 2, column / 2) - 128
            out[to++] = level(y + 1.7927f * v)
            out[to++] = level(y - 0.2132f * u - 0.5329f * v)
            out[to++] = level(y + 2.1124f * u)
        }
    }
    return out
}

private fun Image.Plane.at(row: Int, column: Int): Int =
    buffer.get(row * rowStride + column * pixelStride).toInt() and 0xFF

private fun level(value: Float): Byte = Math.round(value).coerceIn(0, 255).toByte()
