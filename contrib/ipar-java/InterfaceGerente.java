import java.rmi.Remote;
import java.rmi.RemoteException;

/** The manager of an ipar application, as the application sees it. */
public interface InterfaceGerente extends Remote {
    /** From inicia: these are the tasks. From executa: the task was split into these. */
    Boolean listaTarefas(String[] tarefas) throws RemoteException;

    /** From executa: the task of this number was done, or could not be. */
    Boolean tarefa(int id, boolean ok) throws RemoteException;

    /** From finaliza: all is joined, or could not be. */
    Boolean finaliza(boolean ok) throws RemoteException;
}
