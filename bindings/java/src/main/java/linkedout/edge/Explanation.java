package linkedout.edge;

import java.util.List;
import org.jetbrains.annotations.NotNull;

/** Why a video stands where it stands: numbers that sum to its score, and the strongest of them in words. */
public final class Explanation {
    private final double[] numbers;
    private final float[][] matrix;
    private final List<String> history;
    private final String sentence;

    Explanation(double[] numbers, float[][] matrix, List<String> history, String sentence) {
        this.numbers = numbers;
        this.matrix = matrix;
        this.history = history;
        this.sentence = sentence;
    }

    public double score() {
        return numbers[0];
    }

    /** The part of the score that the prior added. */
    public double prior() {
        return numbers[1];
    }

    /** The part that explore added. */
    public double explored() {
        return numbers[2];
    }

    /** [N][L]: what each watched video adds by each layer, compared with the average video. */
    public @NotNull float[][] matrix() {
        float[][] out = matrix.clone();
        for (int row = 0; row < out.length; row++) {
            out[row] = out[row].clone();
        }
        return out;
    }

    /** Ids of the N watched videos. */
    public @NotNull List<@NotNull String> history() {
        return history;
    }

    /** In English. */
    public @NotNull String sentence() {
        return sentence;
    }

    @Override
    public String toString() {
        return sentence;
    }
}
