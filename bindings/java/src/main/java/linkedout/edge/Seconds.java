package linkedout.edge;

import java.time.Instant;

/** Moments as the core has them: Unix seconds. */
final class Seconds {
    private Seconds() {}

    static double of(Instant at) {
        return at.getEpochSecond() + at.getNano() * 1e-9;
    }

    /** To the microsecond: a double of today's seconds has no more. */
    static Instant instant(double seconds) {
        double whole = Math.floor(seconds);
        return Instant.ofEpochSecond((long) whole, Math.round((seconds - whole) * 1e6) * 1000);
    }
}
