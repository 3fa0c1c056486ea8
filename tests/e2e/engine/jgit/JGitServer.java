import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import org.eclipse.jgit.internal.storage.file.FileRepository;
import org.eclipse.jgit.lib.Repository;
import org.eclipse.jgit.transport.PacketLineOut;
import org.eclipse.jgit.transport.ReceivePack;
import org.eclipse.jgit.transport.RefAdvertiser.PacketLineOutRefAdvertiser;

/**
 * JGit's receive-pack on a port of the loopback interface, which is printed.
 *
 * <p>A connection is one stateless request: a line with {@code advertise} or {@code receive} and the repository's
 * folder, and for the latter the request's body. Starting Java for each request would take most of a test's time.
 */
public class JGitServer {
    public static void main(String[] arguments) throws IOException {
        try (ServerSocket listener = new ServerSocket(0, 50, InetAddress.getLoopbackAddress())) {
            System.out.println(listener.getLocalPort());
            while (true) {
                Socket connection = listener.accept();
                Thread thread = new Thread(() -> answer(connection));
                thread.setDaemon(true);
                thread.start();
            }
        }
    }

    private static void answer(Socket connection) {
        try (connection; InputStream input = connection.getInputStream(); OutputStream output = connection.getOutputStream()) {
            String[] request = readLine(input).split(" ", 2);
            try (Repository repository = new FileRepository(new File(request[1]))) {
                ReceivePack receive = new ReceivePack(repository);
                receive.setBiDirectionalPipe(false);
                if (request[0].equals("advertise")) {
                    receive.sendAdvertisedRefs(new PacketLineOutRefAdvertiser(new PacketLineOut(output)));
                } else {
                    receive.receive(input, output, System.err);
                }
                output.flush();
            }
        } catch (Exception error) {
            error.printStackTrace();
        }
    }

    private static String readLine(InputStream input) throws IOException {
        StringBuilder line = new StringBuilder();
        for (int octet = input.read(); octet != '\n' && octet >= 0; octet = input.read()) {
            line.append((char) octet);
        }
        return new String(line.toString().getBytes(StandardCharsets.ISO_8859_1), StandardCharsets.UTF_8);
    }
}
