import java.rmi.Naming;
import java.util.ArrayList;
import java.util.List;

/**
 * An ipar application: it says its numbers, and splits a task that holds several.
 *
 * <pre>
 * javac -d . Soma.java ../../contrib/ipar-java/InterfaceGerente.java
 * mutirao bag ipar --app Soma.class
 * </pre>
 */
public class Soma {
    public static void main(String[] args) throws Exception {
        InterfaceGerente gerente = (InterfaceGerente) Naming.lookup(args[0]);
        Boolean status;
        switch (args[1]) {
            case "inicia":
                status = gerente.listaTarefas(new String[] {"1", "2 3 4", "5"});
                break;
            case "executa":
                status = executa(gerente, Integer.parseInt(args[2]), args[3]);
                break;
            default:
                System.out.println("joined");
                status = gerente.finaliza(true);
        }
        System.exit(status ? 0 : 1);
    }

    private static Boolean executa(InterfaceGerente gerente, int id, String tarefa) throws Exception {
        List<String> numbers = new ArrayList<>(List.of(tarefa.split(" ")));
        if (numbers.size() > 1) {
            return gerente.listaTarefas(numbers.toArray(new String[0]));
        }
        System.out.println("task " + id + " is " + numbers.get(0));
        return gerente.tarefa(id, true);
    }
}
