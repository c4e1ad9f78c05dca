package mutirao.ipar;

import java.io.File;
import java.io.IOException;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.lang.reflect.Proxy;
import java.rmi.Remote;
import java.rmi.registry.LocateRegistry;
import java.rmi.registry.Registry;
import java.rmi.server.RMISocketFactory;
import java.rmi.server.UnicastRemoteObject;
import java.util.Arrays;
import java.util.jar.Attributes;
import java.util.jar.JarFile;

/**
 * Runs an ipar application of Java's: exports the manager that it looks up, and hands its reports to Mutirão.
 *
 * <pre>java -cp APPLICATION:BRIDGE mutirao.ipar.Bridge APPLICATION [ARGUMENT...] MANAGER METHOD ID TASK</pre>
 *
 * The application runs in this same process, and its remote calls go through memory ({@link MemorySockets}): a
 * confined worker may open no socket.
 */
public final class Bridge {
    private static final String NAME = "gerente";
    private static final int ARGUMENTS_OF_A_RUN = 4;

    private Bridge() {}

    public static void main(String[] arguments) throws Exception {
        if (arguments.length < 1 + ARGUMENTS_OF_A_RUN) {
            throw new IllegalArgumentException("this is started by `mutirao bag ipar`");
        }
        String manager = arguments[arguments.length - ARGUMENTS_OF_A_RUN];
        Application application = Application.of(arguments[0]);
        System.setProperty("java.rmi.server.hostname", "127.0.0.1");
        RMISocketFactory.setSocketFactory(new MemorySockets());

        Remote gerente = manager(application.manager, manager);
        Registry registry = LocateRegistry.createRegistry(Registry.REGISTRY_PORT);
        registry.bind(NAME, UnicastRemoteObject.exportObject(gerente, 0));

        String[] own = Arrays.copyOfRange(arguments, 1, arguments.length);
        own[own.length - ARGUMENTS_OF_A_RUN] = "rmi://127.0.0.1:" + Registry.REGISTRY_PORT + "/" + NAME;
        int code = run(application.main, own);
        System.exit(code);
    }

    /** Runs the application to its end, which is that of all its threads. */
    private static int run(Method main, String[] arguments) throws InterruptedException {
        int[] code = {0};
        ThreadGroup group = new ThreadGroup("application");
        Thread thread = new Thread(group, () -> {
            try {
                main.invoke(null, (Object) arguments);
            } catch (InvocationTargetException thrown) {
                thrown.getCause().printStackTrace();
                code[0] = 1;
            } catch (IllegalAccessException thrown) {
                thrown.printStackTrace();
                code[0] = 1;
            }
        }, "main");
        thread.start();
        thread.join();
        for (Thread other = living(group); other != null; other = living(group)) {
            other.join();
        }
        return code[0];
    }

    private static Thread living(ThreadGroup group) {
        Thread[] threads = new Thread[group.activeCount() + 8];
        int count = group.enumerate(threads);
        return Arrays.stream(threads, 0, count).filter(thread -> !thread.isDaemon()).findFirst().orElse(null);
    }

    /** An object of the application's own interface, whatever package that is in. */
    private static Remote manager(Class<?> type, String manager) {
        return (Remote) Proxy.newProxyInstance(type.getClassLoader(), new Class<?>[] {type}, (self, method, given) -> {
            switch (method.getName()) {
                case "listaTarefas":
                    return Report.tasks(manager, (String[]) given[0]);
                case "tarefa":
                    return Report.task(manager, (Integer) given[0], (Boolean) given[1]);
                case "finaliza":
                    return Report.end(manager, (Boolean) given[0]);
                case "hashCode":
                    return System.identityHashCode(self);
                case "equals":
                    return self == given[0];
                case "toString":
                    return "the manager";
                default:
                    throw new UnsupportedOperationException("the manager has no " + method.getName());
            }
        });
    }

    /** What there is to be run. */
    private static final class Application {
        final Method main;
        final Class<?> manager;

        private Application(String main, String manager) throws ReflectiveOperationException {
            this.main = Class.forName(main).getMethod("main", String[].class);
            this.main.setAccessible(true);
            this.manager = Class.forName(manager);
            if (!Modifier.isStatic(this.main.getModifiers()) || !Remote.class.isAssignableFrom(this.manager)) {
                throw new NoSuchMethodException(main + " has no static main, or " + manager + " is not Remote");
            }
        }

        static Application of(String file) throws IOException, ReflectiveOperationException {
            if (!file.endsWith(".jar")) {
                String name = new File(file).getName();
                return new Application(name.substring(0, name.lastIndexOf('.')), "InterfaceGerente");
            }
            try (JarFile jar = new JarFile(file)) {
                String main = jar.getManifest() == null
                    ? null : jar.getManifest().getMainAttributes().getValue(Attributes.Name.MAIN_CLASS);
                if (main == null) {
                    throw new ClassNotFoundException(file + " names no Main-Class in its manifest");
                }
                String manager = jar.stream().map(entry -> entry.getName())
                    .filter(name -> name.equals("InterfaceGerente.class") || name.endsWith("/InterfaceGerente.class"))
                    .findFirst().orElse("InterfaceGerente.class");
                return new Application(main.trim(), manager.replace(".class", "").replace('/', '.'));
            }
        }
    }
}
