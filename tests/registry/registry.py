"""A schema registry over HTTP with the documented interface, as far as clients of one schema use it.

    registry.py serve PORT-FILE [user:password]      prints each request on a line
    registry.py read ADDRESS SUBJECT-TOPIC FOLDER    Confluent's AvroDeserializer reads every *.avro of the folder

https://docs.confluent.io/platform/current/schema-registry/develop/api.html
"""

import base64
import glob
import json
import os
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fastavro

JSON = "application/vnd.schemaregistry.v1+json"
schemas = {}  # canonical text: number
texts = {}  # number: text as registered
subjects = {}  # name: [number]


class Registry(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    authorization = None

    def log_message(self, *_):
        print(self.command, self.path, flush=True)

    def answer(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", JSON)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def admitted(self):
        if self.authorization and self.headers.get("Authorization") != self.authorization:
            self.answer(401, {"error_code": 401, "message": "Unauthorized"})
            return False
        return True

    def do_GET(self):
        if not self.admitted():
            return
        if self.path == "/subjects":
            return self.answer(200, sorted(subjects))
        found = re.fullmatch(r"/schemas/ids/(\d+)(\?.*)?", self.path)
        if found and int(found[1]) in texts:
            return self.answer(200, {"schema": texts[int(found[1])]})
        self.answer(404, {"error_code": 40403, "message": "Schema not found"})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.admitted():
            return
        found = re.fullmatch(r"/subjects/([^/?]+)(/versions)?(\?.*)?", self.path)
        if not found or self.headers["Content-Type"] != JSON or body.get("schemaType", "AVRO") != "AVRO":
            return self.answer(422, {"error_code": 42201, "message": "Invalid request"})
        try:
            canonical = fastavro.schema.to_parsing_canonical_form(json.loads(body["schema"]))
        except Exception as why:
            return self.answer(422, {"error_code": 42201, "message": f"Invalid schema: {why}"})
        if found[1].startswith("refused"):
            return self.answer(409, {"error_code": 409, "message": "Schema being registered is incompatible"})
        # Numbers that are not 1 show that they are used.
        number = schemas.setdefault(canonical, 4711 + len(schemas))
        texts.setdefault(number, body["schema"])
        versions = subjects.setdefault(found[1], [])
        if number not in versions:
            versions.append(number)
        if found[2]:
            return self.answer(200, {"id": number})
        self.answer(200, {"subject": found[1], "id": number, "version": 1, "schema": body["schema"]})


def serve(port_file, user_and_password=None):
    if user_and_password:
        Registry.authorization = "Basic " + base64.b64encode(user_and_password.encode()).decode()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    with open(port_file + ".new", "w") as file:
        file.write(str(server.server_port))
    os.rename(port_file + ".new", port_file)
    server.serve_forever()


def read(address, topic, folder):
    from confluent_kafka.schema_registry import SchemaRegistryClient
    from confluent_kafka.schema_registry.avro import AvroDeserializer
    from confluent_kafka.serialization import MessageField, SerializationContext

    deserialize = AvroDeserializer(SchemaRegistryClient({"url": address}))
    count = 0
    for path in sorted(glob.glob(os.path.join(folder, "**", "*.avro"), recursive=True)):
        with open(path, "rb") as file:
            packet = deserialize(file.read(), SerializationContext(topic, MessageField.VALUE))
        c = packet["candidate"]
        assert c["ssdistnr"] is None and c["ssnamenr"] is None and c["sgscore1"] is None and c["drb"] is None, c
        assert c["candid"] == packet["candid"] and c["magpsf"] > 0
        count += 1
    print(f"{count} messages")


globals()[sys.argv[1]](*sys.argv[2:])
