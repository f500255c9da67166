// Command check_tiles reads a running ACT with Go's own transparency log client (golang.org/x/mod/sumdb), unmodified:
// the signed note, the tiles, every entry's inclusion, a proof file, and a consistency proof. scripts/check_tiles runs it.
package main

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8

type client struct {
	url   string
	tiles map[string][]byte
}

func (c client) get(path string) []byte {
	answer, err := http.Get(c.url + path)
	check(err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	check(err)
	if answer.StatusCode != http.StatusOK {
		check(fmt.Errorf("%s answered %s: %s", path, answer.Status, body))
	}
	return body
}

// Height, ReadTiles and SaveTiles make it a tlog.TileReader. C2SP's paths are Go's without the height.
func (c client) Height() int { return height }

func (c client) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var found [][]byte
	for _, tile := range tiles {
		path := "/tile/" + strings.TrimPrefix(tile.Path(), "tile/8/")
		if c.tiles[path] == nil {
			c.tiles[path] = c.get(path)
		}
		found = append(found, c.tiles[path])
	}
	return found, nil
}

func (c client) SaveTiles([]tlog.Tile, [][]byte) {}

func (c client) checkpoint(key note.Verifier) tlog.Tree {
	signed, err := note.Open(c.get("/checkpoint"), note.VerifierList(key))
	check(err)
	lines := strings.Split(signed.Text, "\n")
	if lines[0] != key.Name() {
		check(fmt.Errorf("the checkpoint is of the log %s", lines[0]))
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	check(err)
	return tlog.Tree{N: size, Hash: hash(lines[2])}
}

func (c client) entries(size int64) [][]byte {
	var found [][]byte
	for first := int64(0); first < size; first += 1 << height {
		tile := tlog.Tile{H: height, L: 0, N: first >> height, W: 1 << height}
		if size-first < 1<<height {
			tile.W = int(size - first)
		}
		bundle := c.get("/tile/entries/" + strings.TrimPrefix(tile.Path(), "tile/8/0/"))
		for len(bundle) > 0 {
			length := 2 + int(binary.BigEndian.Uint16(bundle))
			found = append(found, bundle[2:length])
			bundle = bundle[length:]
		}
	}
	return found
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: check_tiles URL VERIFIER_KEY")
		os.Exit(2)
	}
	act := client{strings.TrimRight(os.Args[1], "/"), map[string][]byte{}}
	key, err := note.NewVerifier(os.Args[2])
	check(err)
	tree := act.checkpoint(key)
	hashes := tlog.TileHashReader(tree, act)
	entries := act.entries(tree.N)
	if int64(len(entries)) != tree.N {
		check(fmt.Errorf("%d entries, and the checkpoint covers %d", len(entries), tree.N))
	}
	for index, entry := range entries {
		proof, err := tlog.ProveRecord(tree.N, int64(index), hashes)
		check(err)
		check(tlog.CheckRecord(proof, tree.N, tree.Hash, int64(index), tlog.RecordHash(entry)))
	}
	if tree.N > 0 {
		head, _, _ := strings.Cut(string(act.get(fmt.Sprintf("/proof/inclusion?index=%d", tree.N/2))), "\n\n")
		var path tlog.RecordProof
		for _, line := range strings.Split(head, "\n")[3:] {
			path = append(path, hash(line))
		}
		check(tlog.CheckRecord(path, tree.N, tree.Hash, tree.N/2, tlog.RecordHash(entries[tree.N/2])))
		old := (tree.N + 1) / 2
		was, err := tlog.TreeHash(old, hashes)
		check(err)
		body, _, _ := strings.Cut(string(act.get(fmt.Sprintf("/proof/consistency?from=%d&to=%d", old, tree.N))), "\n\n")
		var grown tlog.TreeProof
		for _, line := range strings.Split(body, "\n")[1:] {
			grown = append(grown, hash(line))
		}
		check(tlog.CheckTree(grown, tree.N, tree.Hash, old, was))
	}
	fmt.Printf("size %d\nroot %x\nOK\n", tree.N, tree.Hash[:])
}

func hash(text string) (found tlog.Hash) {
	decoded, err := base64.StdEncoding.DecodeString(text)
	check(err)
	if len(decoded) != len(found) {
		check(fmt.Errorf("%q is no hash", text))
	}
	copy(found[:], decoded)
	return found
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "BAD:", err)
		os.Exit(1)
	}
}
