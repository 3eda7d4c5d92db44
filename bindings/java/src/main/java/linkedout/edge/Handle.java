package linkedout.edge;

import java.io.Closeable;
import java.lang.ref.PhantomReference;
import java.lang.ref.Reference;
import java.lang.ref.ReferenceQueue;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;

/**
 * Something that lies in native memory. Native code gets the whole object and reads its number there, so that nothing is
 * collected while a call uses it. The number is never a pointer: a closed one is an error and nothing worse.
 */
class Handle implements Closeable {
    enum Kind {
        RECOMMENDER,
        STORE,
        HISTORY,
        RANKING,
        TASTE
    }

    private final long handle; // native code reads it by this name
    private final Owner owner;

    Handle(Kind kind, long handle) {
        this.handle = handle;
        owner = new Owner(this, kind, handle);
    }

    /** Release it. What another thread is doing with it is finished first; closing again does nothing. */
    @Override
    public void close() {
        owner.close();
    }

    /** Closes what was never closed, some time after it was collected. (java.lang.ref.Cleaner is missing on Android 12.) */
    private static final class Owner extends PhantomReference<Handle> {
        private static final ReferenceQueue<Handle> COLLECTED = new ReferenceQueue<>();
        private static final Set<Owner> OPEN = ConcurrentHashMap.newKeySet();

        private final Kind kind;
        private final long handle;

        Owner(Handle of, Kind kind, long handle) {
            super(of, COLLECTED);
            this.kind = kind;
            this.handle = handle;
            OPEN.add(this);
            for (Reference<?> gone; (gone = COLLECTED.poll()) != null; ) {
                ((Owner) gone).close();
            }
        }

        void close() {
            if (OPEN.remove(this)) {
                Native.close(kind.ordinal(), handle);
            }
        }
    }
}
