package wireguard

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// The keys of the example in wg(8), and the preshared key of the one in wg-quick(8).
const (
	private1 = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
	public1  = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw="
	public2  = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
	public3  = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0="
	psk1     = "/UwcSPg38hW/D9Y3tcS1FOV0K1wuURMbS0sesJEP5ak="
)

func secret(t testing.TB, s string) Secret {
	t.Helper()
	k, err := ParseSecret(s)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func public(t testing.TB, s string) Key {
	t.Helper()
	k, err := ParseKey(s)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func prefixes(list ...string) (to []netip.Prefix) {
	for _, s := range list {
		to = append(to, netip.MustParsePrefix(s))
	}
	return to
}

// Every key, in every form that the manual pages allow.
func TestParseAll(t *testing.T) {
	got, err := Parse(strings.NewReader(`# a comment = nothing
[Interface]
Address = 10.192.122.1/24, 10.10.0.1/16
Address = 10.1.2.3 fd00::1/64	10.9.9.9/8 # three more
PrivateKey = ` + private1 + `
ListenPort = 51820
FwMark = 0xCa6c
MTU = 1380
DNS = 10.200.100.1, fd00::53, corp.example
DNS=10.200.100.2
Table = off
SaveConfig = true
PreUp = echo a = b, c
PostUp=iptables -A FORWARD -i %i -j ACCEPT # comment
PostUp = second
PreDown = x
PostDown = y

[Peer]
PublicKey = ` + public2 + `
PresharedKey = ` + psk1 + `
Endpoint = 192.95.5.67:1234
AllowedIPs = 10.192.122.3/32, 10.192.124.1/24
AllowedIPs = 10.5.5.5, fd00:1::/48
PersistentKeepalive = 25

[Peer]
PublicKey = ` + public3 + `
Endpoint = [2607:5300:60:6b0::c05f:543]:2468
AllowedIPs = 0.0.0.0/0, ::/0
PersistentKeepalive = off
`))
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		PrivateKey: secret(t, private1),
		Addresses:  prefixes("10.192.122.1/24", "10.10.0.1/16", "10.1.2.3/32", "fd00::1/64", "10.9.9.9/8"),
		ListenPort: 51820, FwMark: 0xca6c, MTU: 1380, NoRoutes: true,
		DNS: []string{"10.200.100.1", "fd00::53", "corp.example", "10.200.100.2"},
		Hooks: []Hook{
			{"PreUp", "echo a = b, c", 13}, {"PostUp", "iptables -A FORWARD -i %i -j ACCEPT", 14},
			{"PostUp", "second", 15}, {"PreDown", "x", 16}, {"PostDown", "y", 17},
		},
		Peers: []Peer{
			{
				PublicKey: public(t, public2), PresharedKey: secret(t, psk1), Endpoint: "192.95.5.67:1234",
				AllowedIPs:          prefixes("10.192.122.3/32", "10.192.124.0/24", "10.5.5.5/32", "fd00:1::/48"),
				PersistentKeepalive: 25 * time.Second,
			},
			{
				PublicKey: public(t, public3), Endpoint: "[2607:5300:60:6b0::c05f:543]:2468",
				AllowedIPs: prefixes("0.0.0.0/0", "::/0"),
			},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
}

const (
	head = "[Interface]\nPrivateKey = " + private1 + "\n"
	peer = "[Peer]\nPublicKey = " + public2 + "\n"
)

// Files that are written differently and mean the same.
func TestParseForms(t *testing.T) {
	same := func(a, b string) {
		t.Helper()
		x, err := Parse(strings.NewReader(a))
		if err != nil {
			t.Errorf("%q: %v", a, err)
		}
		y, err := Parse(strings.NewReader(b))
		if err != nil || !reflect.DeepEqual(x, y) {
			t.Errorf("%q: %+v, %v\n%q: %+v", b, y, err, a, x)
		}
	}
	full := head + "ListenPort = 7\n" + peer + "AllowedIPs = 10.0.0.0/8\nEndpoint = a.example:1\n"
	same(full, strings.ReplaceAll(full, "\n", "\r\n"))
	same(full, strings.ReplaceAll(full, " = ", "="))
	same(full, strings.ReplaceAll(full, " = ", "\t \v = \f "))
	same(full, strings.ReplaceAll(full, "\n", " # x\n#\n\n  \n"))
	same(full, "\ufeff"+strings.TrimSuffix(full, "\n"))
	for _, k := range []string{
		"[Interface]", "[Peer]", "PrivateKey", "PublicKey", "ListenPort", "AllowedIPs", "Endpoint",
	} {
		same(full, strings.ReplaceAll(full, k, strings.ToUpper(k)))
		same(full, strings.ReplaceAll(full, k, strings.ToLower(k)))
	}
	same(full, strings.Replace(full, "[Peer]", " [ Pe er ] ", 1)) // wg removes all white space of a line
	same(full, strings.Replace(full, "ListenPort", "Listen Port", 1))
	same(head, head+"FwMark = 0")
	same(head, head+"FwMark = OFF")
	same(head, head+"Table = AUTO\nSaveConfig = FALSE")
	same(head+peer, head+peer+"PersistentKeepalive = 0")
	same(head+peer, head+peer+"AllowedIPs =")
	same(head+peer, peer+head) // the order is free
	same(head+"MTU = 65455", head+"MTU = 65455 ")
}

// Wrong files, and their errors, which begin with the line.
func TestParseErrors(t *testing.T) {
	long := strings.Repeat("x", 43)
	for _, c := range []struct{ text, want string }{
		{"", "line 1: [Interface] is missing"},
		{"# nothing\n", "line 1: [Interface] is missing"},
		{"\n[Interface]\n\n", "line 2: [Interface] has no PrivateKey"},
		{"ListenPort = 1", "line 1: there is no section yet"},
		{"[Interfaces]", `line 1: the section is "[Interfaces]"; it should be [Interface] or [Peer]`},
		{head + "[Interface]", "line 3: [Interface] is already in line 1"},
		{head + "ListenPort = 1\nListenPort = 1", "line 4: ListenPort is already in line 3"},
		{head + "\nnonsense",
			"line 4: nonsense is not a key of this section; it should be one of PrivateKey, ListenPort"},
		{head + "nonsense = 1", "line 3: nonsense is not a key"},
		{head + "MTU", "line 3: MTU has no value"},
		{head + "= 1", "line 3: the line should be [Interface], [Peer] or Key = value"},
		{head + "PublicKey = " + public2, "line 3: PublicKey belongs in [Peer]"},
		{head + peer + "mtu = 1400", "line 5: MTU belongs in [Interface]"},
		{head + peer + "Address = 10.0.0.1", "line 5: Address belongs in [Interface]"},
		{head + "ListenPort = 65536", `line 3: ListenPort: "65536"; it should be a port, 0 to 65535`},
		{head + "ListenPort = -1", `line 3: ListenPort: "-1"`},
		{head + "ListenPort =", `line 3: ListenPort: ""`},
		{head + "ListenPort = " + long, "line 3: ListenPort: too long to show; it should be a port"},
		{head + "MTU = 67", "line 3: MTU: 67; it should be 68 to 65455 bytes"},
		{head + "MTU = 65456", "line 3: MTU: 65456; it should be"},
		{head + "MTU = large", `line 3: MTU: "large"; it should be 68`},
		{head + "FwMark = 0x1ffffffff", `line 3: FwMark: "0x1ffffffff"; it should be off,`},
		{head + "FwMark = +1", `line 3: FwMark: "+1"`},
		{head + "Table = 51820", `line 3: Table: "51820"; it should be auto or off`},
		{head + "SaveConfig = maybe", `line 3: SaveConfig: "maybe"; it should be true or false`},
		{head + "Address = 10.0.0.256/8", `line 3: Address: "10.0.0.256/8"; it should be an address such as`},
		{head + "Address = 10.0.0.1/33", "line 3: Address:"},
		{head + "Address = 10.0.0.1/24,fe80::1%lo", `line 3: Address: "fe80::1%lo"`},
		{head + "Address = ::ffff:10.0.0.1/120", "line 3: Address:"},
		{"[Interface]\nPrivateKey = abc", "line 2: PrivateKey: a key is 32 bytes in base64"},
		{"[Interface]\nPrivateKey = " + strings.Replace(private1, "k=", "l=", 1), // sets bits beyond the 32 bytes
			"line 2: PrivateKey:"},
		{"[Interface]\nPrivateKey = " + strings.Repeat("A", 43) + "=", "line 1: [Interface] has no PrivateKey"},
		{head + "[Peer]\n[Peer]\nPublicKey = " + public2, "line 3: [Peer] has no PublicKey"},
		{head + peer + peer, "line 5: [Peer] has the PublicKey of the one in line 3"},
		{head + "[Peer]\nPublicKey = " + public1, "line 3: [Peer] has the PublicKey of this end's own PrivateKey"},
		{head + peer + "PresharedKey = " + long, "line 5: PresharedKey: a key is"},
		{head + peer + "AllowedIPs = 10.0.0.0/8, lots", `line 5: AllowedIPs: "lots"; it should be a prefix such as`},
		{head + peer + "Endpoint = 10.0.0.1", `line 5: Endpoint: "10.0.0.1"; it should be host:port`},
		{head + peer + "Endpoint = :1", `it should be host:port`},
		{head + peer + "Endpoint = ::1:1", `it should be host:port`},
		{head + peer + "Endpoint = a:0", `the port "0"; it should be 1 to 65535`},
		{head + peer + "Endpoint = a:http", `the port "http"`},
		{head + peer + "PersistentKeepalive = 65536",
			`line 5: PersistentKeepalive: "65536"; it should be off, or 0 to 65535 seconds`},
		{head + "DNS = 10.0.0.1, 10.0.0.256", `line 3: DNS: "10.0.0.256"; it should be a name server's address or`},
		{head + "DNS = 0.0.0.0", `line 3: DNS: "0.0.0.0"`},
		{head + "DNS = 10.0.0.1:53", `line 3: DNS: "10.0.0.1:53"`},
		{head + "DNS = corp..example", `line 3: DNS: "corp..example"`},
		{head + "DNS = " + strings.Repeat("1.1.1.1,", maxLine/8), "line 3: a line has 1048576 bytes at most"},
	} {
		cfg, err := Parse(strings.NewReader(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "wireguard: line ") {
			t.Errorf("%.200q:\n\t%v\nwant\t%s", c.text, err, c.want)
		}
		if cfg != nil {
			t.Errorf("%.200q: a configuration and an error", c.text)
		}
	}
}

func TestParseReadError(t *testing.T) {
	_, err := Parse(io.MultiReader(strings.NewReader(head), iotest.ErrReader(os.ErrDeadlineExceeded)))
	if err == nil || !strings.Contains(err.Error(), "timeout") {
		t.Errorf("a reader's error: %v", err)
	}
}

func TestParseFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "wg0.conf")
	if _, err := ParseFile(name); !os.IsNotExist(unwrap(err)) {
		t.Errorf("no file: %v", err)
	}
	os.WriteFile(name, []byte(head+"x = y\n"), 0o600)
	_, err := ParseFile(name)
	if err == nil || !strings.HasPrefix(err.Error(), "wireguard: "+name+":3: x is not a key") {
		t.Error(err)
	}
	os.WriteFile(name, []byte(head), 0o600)
	if cfg, err := ParseFile(name); err != nil || cfg.PrivateKey != secret(t, private1) {
		t.Error(cfg, err)
	}
}

func unwrap(err error) error {
	if u, ok := err.(interface{ Unwrap() error }); ok {
		return u.Unwrap()
	}
	return err
}

func TestKeys(t *testing.T) {
	s := secret(t, private1)
	if s.Public().String() != public1 {
		t.Errorf("Public is %v, wg pubkey says %s", s.Public(), public1)
	}
	if s.Base64() != private1 || s.IsZero() || !(Secret{}).IsZero() {
		t.Error("the secret is not what was read")
	}
	if a, b := NewSecret(), NewSecret(); a == b || a.IsZero() {
		t.Error("NewSecret repeats itself")
	}
}

// No way of printing, logging or encoding a configuration shows a secret.
func TestSecretsDoNotShow(t *testing.T) {
	cfg, err := Parse(strings.NewReader(head + peer + "PresharedKey = " + psk1))
	if err != nil {
		t.Fatal(err)
	}
	var all bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%q", "%d"} {
		fmt.Fprintf(&all, verb+"\n", *cfg)
		fmt.Fprintf(&all, verb+"\n", cfg.PrivateKey)
		fmt.Fprintf(&all, verb+"\n", &cfg.PrivateKey)
		fmt.Fprintf(&all, verb+"\n", cfg.Peers)
	}
	json.NewEncoder(&all).Encode(cfg)
	slog.New(slog.NewTextHandler(&all, nil)).Info("x", "cfg", cfg, "key", cfg.PrivateKey)
	slog.New(slog.NewJSONHandler(&all, nil)).Info("x", "cfg", cfg, "key", cfg.PrivateKey)
	for _, s := range []Secret{cfg.PrivateKey, cfg.Peers[0].PresharedKey} {
		for _, form := range []string{
			s.Base64(), fmt.Sprintf("%x", s.k[:8]), fmt.Sprintf("%X", s.k[:8]),
			fmt.Sprint(s.k[:8])[1:20], fmt.Sprintf("%#v", s.k[:4])[7:20],
		} {
			if strings.Contains(all.String(), form) {
				t.Errorf("%s is in the output:\n%s", form, &all)
			}
		}
	}
}

// base64Key matches text that may be a key.
var base64Key = regexp.MustCompile(`[A-Za-z0-9+/]{43}`)

// For any file, Parse returns a valid configuration, or an error that contains no key.
func FuzzParse(f *testing.F) {
	f.Add(head + peer + "AllowedIPs = 10.0.0.0/8, fd00::/8\nEndpoint = [::1%lo]:1\n" +
		"PersistentKeepalive = 25\nPresharedKey = " + psk1)
	f.Add(head + "Address = 10.0.0.1/24 fd00::1\nMTU = 1280\nFwMark = 0x7\nTable = off\nDNS = 1.1.1.1\n" +
		"PostUp = x # y\nListenPort=1")
	f.Add(private1)
	f.Add("[Interface]\n" + private1 + "\n")
	f.Add("[Interface]\nEndpoint = " + private1)
	f.Add("[Peer]\nAllowedIPs = " + private1)
	f.Fuzz(func(t *testing.T, text string) {
		cfg, err := Parse(strings.NewReader(text))
		if err != nil {
			for _, k := range base64Key.FindAllString(text, -1) {
				if strings.Contains(err.Error(), k) {
					t.Fatalf("%q gives %q away", err, k)
				}
			}
			return
		}
		hooks := cfg.Hooks
		cfg.Hooks = nil
		if err := cfg.check(); err != nil {
			t.Fatalf("what Parse has taken Open does not take: %v", err)
		}
		for _, h := range hooks {
			if strings.ContainsAny(h.Command, "#\n") || h.Line < 1 {
				t.Fatalf("%+v", h)
			}
		}
		for i := range cfg.Peers {
			cfg.Peers[i].Endpoint = "" // nothing is looked up
		}
		ipc, err := cfg.uapi()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(ipc) {
			if !ipcLine.MatchString(line) {
				t.Fatalf("%q is not a line for the device", line)
			}
		}
	})
}

var ipcLine = regexp.MustCompile(`^([a-z_]+=[0-9a-f]{1,64}|allowed_ip=[0-9a-f.:]+/[0-9]+)\n$`)

// Keys of wg-quick without a value, as programs with a web page write them, are ignored: before and
// after those that have one, with and without spaces, comments and carriage returns. The keys of wg
// need a value.
func TestParseEmpty(t *testing.T) {
	text := "[Interface]\nPrivateKey = " + private1 + "\nAddress = \nMTU = \nMTU = 1380\nMTU = \nTable = \nDNS = \n" +
		"PreUp = \nPostUp = \nPreDown = \nPostDown = \nAddress = 10.8.0.1/24\n" +
		"[Peer]\nPublicKey = " + public2 + "\nAllowedIPs = \n"
	want := &Config{
		PrivateKey: secret(t, private1), Addresses: prefixes("10.8.0.1/24"), MTU: 1380,
		Peers: []Peer{{PublicKey: public(t, public2)}},
	}
	for _, text := range []string{
		text, strings.ReplaceAll(text, " = \n", "=\n"), strings.ReplaceAll(text, "\n", "\r\n"),
		strings.ReplaceAll(text, " = \n", " = # none\n"), strings.ReplaceAll(text, " = \n", "\t=\t \t\n"),
	} {
		got, err := Parse(strings.NewReader(text))
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%q is\n%+v, want\n%+v", text, got, want)
		}
		l, err := Open(got)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		l.Close()
	}
	for _, line := range []string{
		"[Interface]\nPrivateKey = ", "[Interface]\nPrivateKey = " + private1 + "\nListenPort = ",
		"[Interface]\nPrivateKey = " + private1 + "\n[Peer]\nPublicKey = " + public2 + "\nPresharedKey = ",
		"[Interface]\nPrivateKey = " + private1 + "\n[Peer]\nPublicKey = " + public2 + "\nEndpoint = ",
		"[Interface]\nPrivateKey = " + private1 + "\n[Peer]\nPublicKey = " + public2 + "\nPostUp = ",
	} {
		if _, err := Parse(strings.NewReader(line)); err == nil {
			t.Errorf("%q: no error", line)
		}
	}
}
