package linkedout.edge;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.jetbrains.annotations.NotNull;

/** What you know of videos besides their content, such as how popular they are. It is standardized and added. */
public final class Prior {
    final double[] values;
    final List<String> ids; // null: the candidates'
    final double weight;

    private Prior(double[] values, List<String> ids, double weight) {
        this.values = values;
        this.ids = ids;
        this.weight = weight;
    }

    /** One value for each candidate; NaN: unknown. */
    public static @NotNull Prior of(@NotNull double... values) {
        return new Prior(LinkedOutException.need(values, "values").clone(), null, 1.0);
    }

    /** Id → value; what is not in it is unknown. */
    public static @NotNull Prior of(@NotNull Map<@NotNull String, @NotNull Double> values) {
        LinkedOutException.need(values, "values");
        List<String> ids = new ArrayList<>();
        List<Double> numbers = new ArrayList<>();
        for (Map.Entry<String, Double> entry : values.entrySet()) {
            if (entry.getKey() == null || entry.getValue() == null) {
                throw LinkedOutException.argument("a prior maps ids to numbers, not " + entry);
            }
            ids.add(entry.getKey());
            numbers.add(entry.getValue());
        }
        return new Prior(numbers.stream().mapToDouble(d -> d).toArray(), ids, 1.0);
    }

    /** @param weight how much one standard deviation of it counts; 1 if you say nothing */
    public @NotNull Prior withWeight(double weight) {
        return new Prior(values, ids, weight);
    }
}
