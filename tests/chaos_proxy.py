"""A TCP proxy that cuts lines: after so many bytes, on demand, or at once."""

import contextlib
import socket
import threading


class ChaosProxy:
    """Forwards connections to a port of this machine.

    Parameters
    ----------
    port : int
        Where to.

    Attributes
    ----------
    port : int
        Where it listens.
    limit : float
        Bytes that a line may carry.
    n_limited : float
        How many more lines the limit may cut.
    n_cut : int
        Lines that were cut, by the limit or by `cut`.
    is_down : bool
        New lines are closed at once.
    """

    def __init__(self, port):
        self.target, self.limit, self.n_limited = port, float("inf"), float("inf")
        self.n_cut, self.is_down = 0, False
        self._open, self._lock = set(), threading.Lock()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self):
        """Cut every line there is."""
        with self._lock:
            pairs, self._open = self._open, set()
        for pair in pairs:
            self.n_cut += 1
            self._close(pair)

    def close(self):
        """Stop listening, and cut what is left."""
        self._server.close()
        self.cut()

    def _accept(self):
        while True:
            try:
                client = self._server.accept()[0]
            except OSError:
                return
            if self.is_down:
                client.close()
                continue
            try:
                pair = (client, socket.create_connection(("127.0.0.1", self.target)))
            except OSError:  # nobody is there: a line that breaks at once
                client.close()
                continue
            with self._lock:
                self._open.add(pair)
            carried = [0]
            for source, sink in (pair, pair[::-1]):
                threading.Thread(target=self._copy, args=(source, sink, pair, carried), daemon=True).start()

    def _copy(self, source, sink, pair, carried):
        with contextlib.suppress(OSError):
            while block := source.recv(1 << 14):
                carried[0] += len(block)
                if carried[0] > self.limit and self.n_limited > 0:
                    self.n_limited -= 1
                    self.n_cut += 1
                    break
                sink.sendall(block)
        self._close(pair)

    def _close(self, pair):
        with self._lock:
            self._open.discard(pair)
        for end in pair:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
