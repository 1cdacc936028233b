"""An app that starts fast: `quick_app.py PORT LINK HOLD`, answers every request with its pid and its version as JSON.

The version is that of the manifest behind its link, so it was read through link and mount. As long as the file HOLD
exists, the start goes on. Standard library only.
"""

import json
import os
import socket
import sys
import time


def main() -> None:
    port, link, hold = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    with open(f"{link}/MANIFEST.json") as file:
        version = json.load(file)["version"]
    print("loading", version, flush=True)
    while os.path.exists(hold):
        time.sleep(0.02)
    server = socket.create_server(("127.0.0.1", port))
    body = json.dumps({"version": version, "pid": os.getpid()}).encode()
    while True:
        client, _ = server.accept()
        with client:
            client.recv(65536)
            client.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


if __name__ == "__main__":
    main()
