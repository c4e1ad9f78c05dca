package mutirao.ipar;

import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.ConnectException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.SocketException;
import java.rmi.server.RMISocketFactory;
import java.util.Arrays;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.atomic.AtomicInteger;

/** Sockets between the two sides of RMI in one process: none of the system's is opened. */
final class MemorySockets extends RMISocketFactory {
    private static final int FIRST_FREE_PORT = 49152;

    private final Map<Integer, Listener> listeners = new ConcurrentHashMap<>();
    private final AtomicInteger nextPort = new AtomicInteger(FIRST_FREE_PORT);

    @Override
    public ServerSocket createServerSocket(int port) throws IOException {
        int number = port == 0 ? nextPort.getAndIncrement() : port;
        Listener listener = new Listener(number);
        if (listeners.putIfAbsent(number, listener) != null) {
            throw new SocketException("port " + number + " is taken");
        }
        return listener;
    }

    @Override
    public Socket createSocket(String host, int port) throws IOException {
        Listener listener = listeners.get(port);
        if (listener == null) {
            throw new ConnectException("nobody listens at port " + port + " of this process");
        }
        Pipe there = new Pipe();
        Pipe back = new Pipe();
        listener.waiting.add(new End(there, back, port));
        return new End(back, there, port);
    }

    private static final class Listener extends ServerSocket {
        final BlockingQueue<Socket> waiting = new LinkedBlockingQueue<>();
        private final int port;

        Listener(int port) throws IOException {
            this.port = port;
        }

        @Override
        public Socket accept() throws IOException {
            try {
                return waiting.take();
            } catch (InterruptedException interrupted) {
                throw new SocketException("interrupted");
            }
        }

        @Override
        public int getLocalPort() {
            return port;
        }

        @Override
        public InetAddress getInetAddress() {
            return InetAddress.getLoopbackAddress();
        }
    }

    private static final class End extends Socket {
        private final Pipe from;
        private final Pipe to;
        private final int port;

        End(Pipe from, Pipe to, int port) {
            this.from = from;
            this.to = to;
            this.port = port;
        }

        @Override
        public InputStream getInputStream() {
            return from.input;
        }

        @Override
        public OutputStream getOutputStream() {
            return to.output;
        }

        @Override
        public synchronized void close() {
            from.end();
            to.end();
        }

        @Override
        public InetAddress getInetAddress() {
            return InetAddress.getLoopbackAddress();
        }

        @Override
        public InetAddress getLocalAddress() {
            return InetAddress.getLoopbackAddress();
        }

        @Override
        public int getPort() {
            return port;
        }

        @Override
        public int getLocalPort() {
            return port;
        }

        @Override
        public void setTcpNoDelay(boolean on) {}

        @Override
        public void setKeepAlive(boolean on) {}

        @Override
        public synchronized void setSoTimeout(int timeout) {}

        @Override
        public synchronized int getSoTimeout() {
            return 0;
        }
    }

    /** Bytes in one direction. What is written waits to be read; both sides are calls that wait for each other. */
    private static final class Pipe {
        private static final byte[] END = {};

        private final BlockingQueue<byte[]> chunks = new LinkedBlockingQueue<>();

        final InputStream input = new InputStream() {
            private ByteArrayInputStream chunk = new ByteArrayInputStream(END);

            @Override
            public int read() throws IOException {
                byte[] one = new byte[1];
                return read(one, 0, 1) < 0 ? -1 : one[0] & 0xff;
            }

            @Override
            public synchronized int read(byte[] into, int offset, int length) throws IOException {
                while (chunk.available() == 0 && length > 0) {
                    try {
                        byte[] next = chunks.take();
                        if (next.length == 0) {
                            chunks.add(END);
                            return -1;
                        }
                        chunk = new ByteArrayInputStream(next);
                    } catch (InterruptedException interrupted) {
                        throw new SocketException("interrupted");
                    }
                }
                return length == 0 ? 0 : chunk.read(into, offset, length);
            }

            @Override
            public int available() {
                return chunk.available();
            }
        };

        final OutputStream output = new OutputStream() {
            @Override
            public void write(int one) {
                write(new byte[] {(byte) one}, 0, 1);
            }

            @Override
            public void write(byte[] from, int offset, int length) {
                if (length > 0) {
                    chunks.add(Arrays.copyOfRange(from, offset, offset + length));
                }
            }
        };

        void end() {
            chunks.add(END);
        }
    }
}
