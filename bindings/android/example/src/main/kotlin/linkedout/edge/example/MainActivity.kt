package linkedout.edge.example

import android.app.Activity
import android.content.Intent
import android.net.Uri
import android.os.Bundle
import android.provider.OpenableColumns
import android.widget.ArrayAdapter
import android.widget.Button
import android.widget.LinearLayout
import android.widget.ListView
import android.widget.TextView
import linkedout.edge.LinkedOutException
import java.io.IOException
import java.util.concurrent.ExecutorService
import java.util.concurrent.Executors

/** Pick videos; tap one to say that you watched and liked it, hold it to say that you skipped it; see what comes next, and why. */
class MainActivity : Activity() {
    private val work: ExecutorService = Executors.newSingleThreadExecutor()
    private var feed: Feed? = null // of the worker's thread
    private var shown: List<Suggestion> = emptyList()
    private lateinit var said: TextView
    private lateinit var rows: ArrayAdapter<String>

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        said = TextView(this)
        rows = ArrayAdapter(this, android.R.layout.simple_list_item_1)
        val pick = Button(this)
        pick.text = "Add videos"
        pick.setOnClickListener { startActivityForResult(videoPicker(), PICKED) }
        val list = ListView(this)
        list.adapter = rows
        list.setOnItemClickListener { _, _, place, _ -> watched(place, 1.0, true) }
        list.setOnItemLongClickListener { _, _, place, _ ->
            watched(place, 0.05, null)
            true
        }
        val page = LinearLayout(this)
        page.orientation = LinearLayout.VERTICAL
        page.fitsSystemWindows = true
        page.addView(pick)
        page.addView(said)
        page.addView(list)
        setContentView(page)
        inBackground { }
    }

    override fun onDestroy() {
        work.execute { feed?.close() }
        work.shutdown()
        super.onDestroy()
    }

    override fun onActivityResult(requestCode: Int, resultCode: Int, data: Intent?) {
        super.onActivityResult(requestCode, resultCode, data)
        if (requestCode != PICKED || resultCode != RESULT_OK || data == null) return
        val clip = data.clipData
        val picked = if (clip == null) listOfNotNull(data.data) else (0 until clip.itemCount).map { clip.getItemAt(it).uri }
        for (video in picked) {
            contentResolver.takePersistableUriPermission(video, Intent.FLAG_GRANT_READ_URI_PERMISSION)
            inBackground { it.add(video, nameOf(video)) }
        }
    }

    private fun watched(place: Int, fraction: Double, liked: Boolean?) {
        val id = shown[place].id
        inBackground { it.watched(id, fraction, liked) }
    }

    /** Do something with the feed, then show it as it is now. */
    private fun inBackground(step: (Feed) -> Unit) {
        work.execute {
            try {
                val opened = feed ?: Feed(applicationContext).also { feed = it }
                step(opened)
                val next = opened.suggestions()
                val taste = opened.taste()
                runOnUiThread { show(next, taste) }
            } catch (e: LinkedOutException) {
                runOnUiThread { said.text = "${e.status()}: ${e.message}" }
            } catch (e: IOException) {
                runOnUiThread { said.text = e.message }
            }
        }
    }

    private fun show(next: List<Suggestion>, taste: String) {
        shown = next
        said.text = taste
        rows.clear()
        rows.addAll(next.map { "${nameOf(Uri.parse(it.id)) ?: it.id}\n${it.reason}" })
    }

    private fun nameOf(video: Uri): String? =
        contentResolver.query(video, arrayOf(OpenableColumns.DISPLAY_NAME), null, null, null)?.use {
            if (it.moveToFirst()) it.getString(0) else null
        }

    private fun videoPicker(): Intent {
        val intent = Intent(Intent.ACTION_OPEN_DOCUMENT)
        intent.addCategory(Intent.CATEGORY_OPENABLE)
        intent.type = "video/*"
        intent.putExtra(Intent.EXTRA_ALLOW_MULTIPLE, true)
        return intent
    }

    private companion object {
        const val PICKED = 1
    }
}
