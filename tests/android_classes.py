"""Stand-ins for the classes of Android that the example of bindings/android uses, so that a compiler can read it where
there is no SDK: signatures alone, as Android documents them."""

from __future__ import annotations

from pathlib import Path

CLASSES = {
    "android.R": """public final class R {
        public static final class layout { public static final int simple_list_item_1 = 1; } }""",
    "android.app.Activity": """public class Activity extends android.content.Context {
        public static final int RESULT_OK = -1;
        protected void onCreate(android.os.Bundle state) {}
        protected void onDestroy() {}
        protected void onActivityResult(int request, int result, android.content.Intent data) {}
        public void setContentView(android.view.View view) {}
        public void startActivityForResult(android.content.Intent intent, int request) {}
        public final void runOnUiThread(Runnable action) {} }""",
    "android.content.ClipData": """public class ClipData {
        public int getItemCount() { return 0; }
        public Item getItemAt(int index) { return null; }
        public static class Item { public android.net.Uri getUri() { return null; } } }""",
    "android.content.ContentResolver": """public abstract class ContentResolver {
        public void takePersistableUriPermission(android.net.Uri uri, int flags) {}
        public final android.database.Cursor query(
            android.net.Uri uri, String[] columns, String where, String[] values, String order) { return null; } }""",
    "android.content.Context": """public abstract class Context {
        public java.io.File getFilesDir() { return null; }
        public java.io.File getNoBackupFilesDir() { return null; }
        public android.content.res.AssetManager getAssets() { return null; }
        public android.content.pm.PackageManager getPackageManager() { return null; }
        public String getPackageName() { return null; }
        public ContentResolver getContentResolver() { return null; }
        public Context getApplicationContext() { return null; } }""",
    "android.content.Intent": """public class Intent {
        public static final String ACTION_OPEN_DOCUMENT = "", CATEGORY_OPENABLE = "", EXTRA_ALLOW_MULTIPLE = "";
        public static final int FLAG_GRANT_READ_URI_PERMISSION = 1;
        public Intent(String action) {}
        public Intent addCategory(String category) { return this; }
        public Intent setType(String type) { return this; }
        public String getType() { return null; }
        public Intent putExtra(String name, boolean value) { return this; }
        public ClipData getClipData() { return null; }
        public android.net.Uri getData() { return null; } }""",
    "android.content.pm.PackageInfo": "public class PackageInfo { public long lastUpdateTime; }",
    "android.content.pm.PackageManager": """public abstract class PackageManager {
        public abstract PackageInfo getPackageInfo(String name, int flags) throws Exception; }""",
    "android.content.res.AssetManager": """public final class AssetManager {
        public String[] list(String path) throws java.io.IOException { return null; }
        public java.io.InputStream open(String path) throws java.io.IOException { return null; } }""",
    "android.database.Cursor": """public interface Cursor extends java.io.Closeable {
        boolean moveToFirst(); String getString(int column); void close(); }""",
    "android.graphics.Bitmap": """public final class Bitmap {
        public int getWidth() { return 0; }
        public int getHeight() { return 0; }
        public void recycle() {}
        public void getPixels(int[] pixels, int offset, int stride, int x, int y, int width, int height) {} }""",
    "android.graphics.ImageFormat": "public class ImageFormat { public static final int YUV_420_888 = 35; }",
    "android.graphics.Rect": """public final class Rect {
        public int left, top, right, bottom;
        public int width() { return 0; }
        public int height() { return 0; } }""",
    "android.media.Image": """public abstract class Image {
        public abstract int getFormat();
        public abstract Plane[] getPlanes();
        public android.graphics.Rect getCropRect() { return null; }
        public static abstract class Plane {
            public abstract int getRowStride();
            public abstract int getPixelStride();
            public abstract java.nio.ByteBuffer getBuffer(); } }""",
    "android.media.MediaMetadataRetriever": """public class MediaMetadataRetriever {
        public static final int METADATA_KEY_DURATION = 9, OPTION_CLOSEST = 3;
        public void setDataSource(android.content.Context context, android.net.Uri uri) {}
        public String extractMetadata(int key) { return null; }
        public android.graphics.Bitmap getFrameAtTime(long micros, int option) { return null; }
        public void release() throws java.io.IOException {} }""",
    "android.net.Uri": "public abstract class Uri { public static Uri parse(String text) { return null; } }",
    "android.os.Bundle": "public final class Bundle {}",
    "android.provider.OpenableColumns": 'public interface OpenableColumns { String DISPLAY_NAME = ""; }',
    "android.view.View": """public class View {
        public View(android.content.Context context) {}
        public interface OnClickListener { void onClick(View view); }
        public void setOnClickListener(OnClickListener listener) {}
        public void setFitsSystemWindows(boolean fits) {}
        public boolean getFitsSystemWindows() { return false; } }""",
    "android.view.ViewGroup": """public abstract class ViewGroup extends View {
        public ViewGroup(android.content.Context context) { super(context); }
        public void addView(View child) {} }""",
    "android.widget.AdapterView": """public abstract class AdapterView<T> extends android.view.ViewGroup {
        public AdapterView(android.content.Context context) { super(context); }
        public interface OnItemClickListener {
            void onItemClick(AdapterView<?> parent, android.view.View view, int position, long id); }
        public interface OnItemLongClickListener {
            boolean onItemLongClick(AdapterView<?> parent, android.view.View view, int position, long id); }
        public void setOnItemClickListener(OnItemClickListener listener) {}
        public void setOnItemLongClickListener(OnItemLongClickListener listener) {} }""",
    "android.widget.ArrayAdapter": """public class ArrayAdapter<T> implements ListAdapter {
        public ArrayAdapter(android.content.Context context, int resource) {}
        public void clear() {}
        public void addAll(java.util.Collection<? extends T> items) {} }""",
    "android.widget.Button": """public class Button extends TextView {
        public Button(android.content.Context context) { super(context); } }""",
    "android.widget.LinearLayout": """public class LinearLayout extends android.view.ViewGroup {
        public static final int VERTICAL = 1;
        public LinearLayout(android.content.Context context) { super(context); }
        public void setOrientation(int orientation) {}
        public int getOrientation() { return 0; } }""",
    "android.widget.ListAdapter": "public interface ListAdapter {}",
    "android.widget.ListView": """public class ListView extends AdapterView<ListAdapter> {
        public ListView(android.content.Context context) { super(context); }
        public void setAdapter(ListAdapter adapter) {}
        public ListAdapter getAdapter() { return null; } }""",
    "android.widget.TextView": """public class TextView extends android.view.View {
        public TextView(android.content.Context context) { super(context); }
        public final void setText(CharSequence text) {}
        public CharSequence getText() { return null; } }""",
}  # fmt: skip


def write(folder: Path) -> list[Path]:
    """Java sources of them all."""
    out = []
    for name, body in CLASSES.items():
        package, _, simple = name.rpartition(".")
        path = folder / package.replace(".", "/") / f"{simple}.java"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"package {package};\n{body}\n")
        out.append(path)
    return out
