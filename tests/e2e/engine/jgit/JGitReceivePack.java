import java.io.File;
import org.eclipse.jgit.internal.storage.file.FileRepository;
import org.eclipse.jgit.lib.Repository;
import org.eclipse.jgit.transport.PacketLineOut;
import org.eclipse.jgit.transport.ReceivePack;
import org.eclipse.jgit.transport.RefAdvertiser.PacketLineOutRefAdvertiser;

/** JGit's receive-pack on standard input and output: one stateless request, or the advertisement. */
public class JGitReceivePack {
    public static void main(String[] arguments) throws Exception {
        try (Repository repository = new FileRepository(new File(arguments[0]))) {
            ReceivePack receive = new ReceivePack(repository);
            receive.setBiDirectionalPipe(false);
            if (arguments[1].equals("advertise")) {
                receive.sendAdvertisedRefs(new PacketLineOutRefAdvertiser(new PacketLineOut(System.out)));
            } else {
                receive.receive(System.in, System.out, System.err);
            }
            System.out.flush();
        }
    }
}
