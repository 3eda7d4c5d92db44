package linkedout.edge;

import java.lang.reflect.Constructor;
import java.lang.reflect.Executable;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.util.List;

/** Prints what the package offers, one name a line, as docs/bindings-java.md writes them: {@code Class}, {@code Class.method}. */
final class Surface {
    private static final List<Class<?>> CLASSES = List.of(
            Event.class,
            Explanation.class,
            Failed.class,
            Frames.class,
            History.class,
            Info.class,
            Interest.class,
            LinkedOutException.class,
            LoadOptions.class,
            Prior.class,
            RankOptions.class,
            Ranked.class,
            Ranking.class,
            Recommender.class,
            Source.class,
            Status.class,
            Store.class,
            TasteSummary.class,
            Video.class);

    private Surface() {}

    public static void main(String[] arguments) {
        for (Class<?> type : CLASSES) {
            if (!Modifier.isPublic(type.getModifiers())) {
                throw new AssertionError(type + " is not public");
            }
            System.out.println(type.getSimpleName());
            for (Method method : type.getMethods()) {
                if (method.getDeclaringClass().getName().startsWith("linkedout.") && isOffered(method)) {
                    System.out.println(type.getSimpleName() + "." + method.getName());
                }
            }
            for (Constructor<?> constructor : type.getConstructors()) {
                System.out.println("new " + type.getSimpleName());
            }
        }
    }

    private static boolean isOffered(Executable method) {
        return Modifier.isPublic(method.getModifiers());
    }
}
