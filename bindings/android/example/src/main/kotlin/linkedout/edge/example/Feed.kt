package linkedout.edge.example

import android.content.Context
import android.net.Uri
import linkedout.edge.Event
import linkedout.edge.History
import linkedout.edge.LoadOptions
import linkedout.edge.RankOptions
import linkedout.edge.Recommender
import linkedout.edge.Store
import linkedout.edge.Video
import java.io.File
import java.time.Instant

/** A video of the feed, and why it stands where it stands. */
class Suggestion(val id: String, val reason: String)

/**
 * What the app keeps: videos and history, each in a file of its own folder. Not for the UI's thread: encoding takes tens of
 * milliseconds a video, decoding more.
 */
class Feed(private val context: Context) : AutoCloseable {
    private val rec = Recommender.load(bundle(context).path, LoadOptions().withPrecision("int8"))
    private val pack = File(context.filesDir, "videos.safetensors")
    private val saved = File(context.filesDir, "history.safetensors")
    private val store = Store(rec)
    private val history: History

    init {
        if (pack.exists()) store.readPack(pack.readBytes())
        history = if (saved.exists()) History.load(rec, saved.readBytes()) else History(rec)
    }

    fun add(video: Uri, title: String?) {
        val id = video.toString()
        if (store.find(id) >= 0) return
        store.put(Video(id, rec.encode(framesOf(rec, context, video), title), title))
        write(pack, store.writePack())
    }

    fun watched(id: String, fraction: Double, liked: Boolean?) {
        val video = store.get(store.find(id))
        val event = Event(id, video.features(), video.title())
        history.add(event.withWatched(fraction).withLiked(liked).withAt(Instant.now()))
        write(saved, history.save())
    }

    fun suggestions(): List<Suggestion> {
        val options = RankOptions().withTopK(50).withDiversity(0.3).withExcludeWatched(true)
        return rec.rank(store, history, null, options).use { ranking ->
            ranking.map { Suggestion(it.id(), it.explain().sentence()) }
        }
    }

    /** What the model believes, to be shown to the person whom it is about. */
    fun taste(): String = rec.taste(store, history).sentence()

    /** Forget a video wholly: what was watched of it, and the video. */
    fun forget(id: String) {
        history.forget(id)
        store.remove(listOf(id))
        write(saved, history.save())
        write(pack, store.writePack())
    }

    override fun close() {
        history.close()
        store.close()
        rec.close()
    }
}

/** Replace a file: a crash leaves the old one or the new one. */
private fun write(file: File, bytes: ByteArray) {
    val next = File(file.path + ".new")
    next.outputStream().use {
        it.write(bytes)
        it.fd.sync()
    }
    check(next.renameTo(file)) { "$file cannot be written" }
}

/** The bundle's folder. Assets are no files, so they are copied, once for each version of the app. */
private fun bundle(context: Context): File {
    val version = context.packageManager.getPackageInfo(context.packageName, 0).lastUpdateTime
    val folder = File(context.noBackupFilesDir, "bundle-$version")
    if (!folder.exists()) {
        val half = File(context.noBackupFilesDir, "bundle.new")
        half.deleteRecursively()
        copy(context, "base", half)
        check(half.renameTo(folder)) { "$folder cannot be made" }
    }
    return folder
}

private fun copy(context: Context, asset: String, to: File) {
    val inside = context.assets.list(asset) ?: emptyArray()
    if (inside.isEmpty()) {
        context.assets.open(asset).use { from -> to.outputStream().use { from.copyTo(it) } }
    } else {
        to.mkdirs()
        inside.forEach { copy(context, "$asset/$it", File(to, it)) }
    }
}
