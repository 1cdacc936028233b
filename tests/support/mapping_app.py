"""An app that maps its whole model and keeps it: `mapping_app.py PORT LINK`, answers its pid and each file's sha256.

Standard library only.
"""

import hashlib
import json
import mmap
import os
import socket
import sys


def main() -> None:
    port, link = int(sys.argv[1]), sys.argv[2]
    held: list[mmap.mmap] = []
    digests: dict[str, str] = {}
    for parent, _, names in os.walk(os.path.realpath(link)):
        for name in names:
            path = os.path.join(parent, name)
            with open(path, "rb") as file:
                if os.fstat(file.fileno()).st_size:
                    held.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
                    digests[os.path.relpath(path, os.path.realpath(link))] = hashlib.sha256(held[-1]).hexdigest()
    server = socket.create_server(("127.0.0.1", port))
    body = json.dumps({"pid": os.getpid(), "digests": digests}).encode()
    while True:
        client, _ = server.accept()
        with client:
            client.recv(65536)
            client.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


if __name__ == "__main__":
    main()
