// A node of go-libp2p, go-libp2p-kad-dht and boxo on loopback, controlled by commands on standard input, one per line.
//
// Usage: go-node PORT server|client|http
// A server or a client of the DHT of the local network with bitswap; or neither DHT nor bitswap, but HTTP only.
// Commands: connect MULTIADDRESS, peers, add FILE, provide CID, find CID, pin CID, get CID FILE, serve,
// route URL CID, fetch URL CID FILE, quit. Each is answered with one line: its name in capitals, then the result.
// `serve` starts a trustless gateway and a server of delegated routing, and answers with their URL; `route` asks
// such a server for providers, and `fetch` reads a file through such a gateway, verifying each block.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/chunker"
	"github.com/ipfs/boxo/exchange"
	"github.com/ipfs/boxo/exchange/offline"
	"github.com/ipfs/boxo/gateway"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	unixfs "github.com/ipfs/boxo/ipld/unixfs/io"
	"github.com/ipfs/boxo/ipns"
	"github.com/ipfs/boxo/routing/http/client"
	"github.com/ipfs/boxo/routing/http/server"
	"github.com/ipfs/boxo/routing/http/types"
	"github.com/ipfs/boxo/routing/http/types/iter"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/routing"
	"github.com/multiformats/go-multiaddr"
)

// Time limit of one command.
const commandTimeout = 2 * time.Minute

// Providers that one search returns at most.
const providersMax = 10

type node struct {
	host   host.Host
	dht    *dht.IpfsDHT // nil in the mode http
	store  blockstore.Blockstore
	blocks blockservice.BlockService
	url    string // of the HTTP server, once started
}

func start(ctx context.Context, port, mode string) (*node, error) {
	listen := "/ip4/127.0.0.1/tcp/" + port
	// No search for peers or a way through a NAT: it contacts only nodes that it is told to connect to, and those
	// that these report.
	host, err := libp2p.New(libp2p.ListenAddrStrings(listen), libp2p.DisableRelay())
	if err != nil {
		return nil, err
	}
	n := &node{
		host:  host,
		store: blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore())),
	}
	var from exchange.Interface = offline.Exchange(n.store)
	if mode != "http" {
		dhtMode := dht.ModeServer
		if mode == "client" {
			dhtMode = dht.ModeClient
		}
		// The protocol of the local network. Without the filters of package dual, loopback addresses are in use.
		n.dht, err = dht.New(host, dht.Mode(dhtMode), dht.ProtocolExtension("/lan"))
		if err != nil {
			return nil, err
		}
		from = bitswap.New(ctx, bsnet.NewFromIpfsHost(host), n.dht, n.store)
	}
	n.blocks = blockservice.New(n.store, from)
	return n, nil
}

func (n *node) connect(ctx context.Context, address string) (string, error) {
	info, err := peer.AddrInfoFromString(address)
	if err != nil {
		return "", err
	}
	if err := n.host.Connect(ctx, *info); err != nil {
		return "", err
	}
	// A server enters the routing table once it has answered a query, shortly after the connection.
	for n.dht.RoutingTable().Find(info.ID) == "" {
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("%s is in no routing table: %w", info.ID, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
	return "0", nil
}

func (n *node) peers() string {
	var ids []string
	for _, id := range n.host.Network().Peers() {
		ids = append(ids, id.String())
	}
	return strings.Join(ids, " ")
}

// Adds a file as `ipfs add --cid-version=1` does.
func (n *node) add(name string) (string, error) {
	file, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer file.Close()
	prefix, err := merkledag.PrefixForCidVersion(1)
	if err != nil {
		return "", err
	}
	dag := merkledag.NewDAGService(blockservice.New(n.store, offline.Exchange(n.store)))
	params := helpers.DagBuilderParams{
		Maxlinks:   helpers.DefaultLinksPerBlock,
		RawLeaves:  true,
		CidBuilder: prefix,
		Dagserv:    dag,
	}
	builder, err := params.New(chunk.DefaultSplitter(file))
	if err != nil {
		return "", err
	}
	root, err := balanced.Layout(builder)
	if err != nil {
		return "", err
	}
	return root.Cid().String(), nil
}

func (n *node) find(ctx context.Context, c cid.Cid) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var ids []string
	for found := range n.dht.FindProvidersAsync(ctx, c, providersMax) {
		ids = append(ids, found.ID.String())
	}
	return strings.Join(ids, " "), nil
}

// Writes the file with this root, whose blocks the service has or fetches.
func get(ctx context.Context, from blockservice.BlockService, c cid.Cid, name string) (string, error) {
	dag := merkledag.NewDAGService(from)
	root, err := dag.Get(ctx, c)
	if err != nil {
		return "", err
	}
	reader, err := unixfs.NewDagReader(ctx, root, dag)
	if err != nil {
		return "", err
	}
	defer reader.Close()
	file, err := os.Create(name)
	if err != nil {
		return "", err
	}
	defer file.Close()
	if _, err := io.Copy(file, reader); err != nil {
		return "", err
	}
	return "0", file.Close()
}

func (n *node) pin(ctx context.Context, c cid.Cid) (string, error) {
	return "0", merkledag.FetchGraph(ctx, c, merkledag.NewDAGService(n.blocks))
}

func fetch(ctx context.Context, url string, c cid.Cid, name string) (string, error) {
	remote, err := gateway.NewRemoteBlockstore([]string{url}, nil)
	if err != nil {
		return "", err
	}
	return get(ctx, blockservice.New(remote, offline.Exchange(remote)), c, name)
}

func route(ctx context.Context, url string, c cid.Cid) (string, error) {
	router, err := client.New(url)
	if err != nil {
		return "", err
	}
	found, err := router.FindProviders(ctx, c)
	if err != nil {
		return "", err
	}
	records, err := iter.ReadAllResults(found)
	if err != nil {
		return "", err
	}
	var ids []string
	for _, record := range records {
		if provider, ok := record.(*types.PeerRecord); ok {
			ids = append(ids, provider.ID.String())
		}
	}
	return strings.Join(ids, " "), nil
}

// Starts the HTTP server.
func (n *node) serve() (string, error) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	n.url = "http://" + listener.Addr().String()
	// Only what this node has itself.
	local := blockservice.New(n.store, offline.Exchange(n.store))
	backend, err := gateway.NewBlocksBackend(local)
	if err != nil {
		return "", err
	}
	routes := http.NewServeMux()
	routes.Handle("/ipfs/", gateway.NewHandler(gateway.Config{NoDNSLink: true}, backend))
	routes.Handle("/routing/v1/", server.Handler(router{n}))
	go func() { log.Fatal(http.Serve(listener, routes)) }()
	return n.url, nil
}

// Delegated routing: what the DHT knows, or without it the own gateway for own content.
type router struct{ *node }

func record(id peer.ID, protocol string, addresses ...multiaddr.Multiaddr) types.Record {
	provider := &types.PeerRecord{Schema: types.SchemaPeer, ID: &id, Protocols: []string{protocol}}
	for _, address := range addresses {
		provider.Addrs = append(provider.Addrs, types.Multiaddr{Multiaddr: address})
	}
	return provider
}

func (r router) FindProviders(ctx context.Context, c cid.Cid, _ int) (iter.ResultIter[types.Record], error) {
	var records []types.Record
	if r.dht == nil {
		has, err := r.store.Has(ctx, c)
		if err != nil {
			return nil, err
		}
		if has {
			_, port, _ := strings.Cut(strings.TrimPrefix(r.url, "http://"), ":")
			address, err := multiaddr.NewMultiaddr("/ip4/127.0.0.1/tcp/" + port + "/http")
			if err != nil {
				return nil, err
			}
			records = append(records, record(r.host.ID(), "transport-ipfs-gateway-http", address))
		}
	} else {
		for found := range r.dht.FindProvidersAsync(ctx, c, providersMax) {
			records = append(records, record(found.ID, "transport-bitswap", found.Addrs...))
		}
	}
	return iter.ToResultIter(iter.FromSlice(records)), nil
}

func (r router) FindPeers(ctx context.Context, id peer.ID, _ int) (iter.ResultIter[*types.PeerRecord], error) {
	if r.dht == nil {
		return nil, routing.ErrNotFound
	}
	info, err := r.dht.FindPeer(ctx, id)
	if err != nil {
		return nil, err
	}
	found := record(info.ID, "transport-bitswap", info.Addrs...).(*types.PeerRecord)
	return iter.ToResultIter(iter.FromSlice([]*types.PeerRecord{found})), nil
}

func (r router) ProvideBitswap(context.Context, *server.BitswapWriteProvideRequest) (time.Duration, error) {
	return 0, errors.ErrUnsupported
}

func (r router) GetIPNS(context.Context, ipns.Name) (*ipns.Record, error) {
	return nil, routing.ErrNotFound
}

func (r router) PutIPNS(context.Context, ipns.Name, *ipns.Record) error {
	return errors.ErrUnsupported
}

func (r router) GetClosestPeers(context.Context, cid.Cid) (iter.ResultIter[*types.PeerRecord], error) {
	return nil, routing.ErrNotFound
}

func (n *node) execute(ctx context.Context, order string, given []string) (string, error) {
	// All commands with a CID have it after the URL, if there is one.
	var c cid.Cid
	for _, argument := range given {
		if decoded, err := cid.Decode(argument); err == nil {
			c = decoded
			break
		}
	}
	switch {
	case order == "connect" && len(given) == 1:
		return n.connect(ctx, given[0])
	case order == "peers":
		return n.peers(), nil
	case order == "add" && len(given) == 1:
		return n.add(given[0])
	case order == "provide" && c.Defined():
		return "0", n.dht.Provide(ctx, c, true)
	case order == "find" && c.Defined():
		return n.find(ctx, c)
	case order == "pin" && c.Defined():
		return n.pin(ctx, c)
	case order == "get" && len(given) == 2 && c.Defined():
		return get(ctx, n.blocks, c, given[1])
	case order == "serve":
		return n.serve()
	case order == "route" && len(given) == 2 && c.Defined():
		return route(ctx, given[0], c)
	case order == "fetch" && len(given) == 3 && c.Defined():
		return fetch(ctx, given[0], c, given[2])
	default:
		return "", fmt.Errorf("no such command: %s %v", order, given)
	}
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("usage: go-node PORT server|client|http")
	}
	ctx := context.Background()
	n, err := start(ctx, os.Args[1], os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("ID", n.host.ID())
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		words := strings.Fields(lines.Text())
		if len(words) == 0 || words[0] == "quit" {
			return
		}
		limited, cancel := context.WithTimeout(ctx, commandTimeout)
		result, err := n.execute(limited, words[0], words[1:])
		cancel()
		if err != nil {
			result = "failed: " + err.Error()
		}
		fmt.Println(strings.ToUpper(words[0]), result)
	}
}
