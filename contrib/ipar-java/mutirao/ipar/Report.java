package mutirao.ipar;

import java.io.IOException;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/** Reports, by `mutirao bag report`. Each says whether it was made. */
final class Report {
    private Report() {}

    static boolean tasks(String manager, String[] tasks) throws IOException, InterruptedException {
        boolean lines = Arrays.stream(tasks).noneMatch(task -> task.indexOf('\n') >= 0 || task.indexOf('\r') >= 0);
        if (lines) {
            StringBuilder input = new StringBuilder();
            Arrays.stream(tasks).forEach(task -> input.append(task).append('\n'));
            return report(input.toString(), manager, "lista");
        }
        // As arguments, which may hold ends of lines.
        List<String> words = new ArrayList<>(Arrays.asList(manager, "lista", "--"));
        words.addAll(Arrays.asList(tasks));
        return report("", words.toArray(new String[0]));
    }

    static boolean task(String manager, int id, boolean ok) throws IOException, InterruptedException {
        return report("", manager, "tarefa", Integer.toString(id), how(ok));
    }

    static boolean end(String manager, boolean ok) throws IOException, InterruptedException {
        return report("", manager, "finaliza", how(ok));
    }

    private static String how(boolean ok) {
        return ok ? "ok" : "failed";
    }

    private static boolean report(String input, String... words) throws IOException, InterruptedException {
        String mutirao = System.getenv("MUTIRAO");
        List<String> command = new ArrayList<>(Arrays.asList(mutirao == null ? "mutirao" : mutirao, "bag", "report"));
        command.addAll(Arrays.asList(words));
        Process process = new ProcessBuilder(command)
            .redirectOutput(ProcessBuilder.Redirect.INHERIT)
            .redirectError(ProcessBuilder.Redirect.INHERIT)
            .start();
        try (OutputStream stream = process.getOutputStream()) {
            stream.write(input.getBytes(StandardCharsets.UTF_8));
        }
        return process.waitFor() == 0;
    }
}
