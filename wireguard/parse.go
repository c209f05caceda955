package wireguard

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// maxLine is the longest line of a file in bytes. It has room for about 50,000 prefixes.
const maxLine = 1 << 20

// ParseFile parses the configuration in a file, as [Parse] does. If a line is wrong, the error
// begins with the name of the file and the number of the line. If the file cannot be read, the
// error is that of package os, wrapped.
func ParseFile(name string) (*Config, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("wireguard: %w", err)
	}
	defer f.Close()
	return parse(f, name+":")
}

// Parse parses a configuration in the format of wg-quick(8); the package comment describes it. If a
// line is wrong, the error begins with its number and says what would be right. Errors never
// contain a private or a preshared key.
func Parse(r io.Reader) (*Config, error) { return parse(r, "line ") }

func parse(r io.Reader, where string) (*Config, error) {
	p := parser{cfg: new(Config)}
	in := bufio.NewScanner(r)
	in.Buffer(nil, maxLine)
	for in.Scan() {
		p.n++
		text := in.Text()
		if p.n == 1 {
			text = strings.TrimPrefix(text, "\ufeff")
		}
		if err := p.line(text); err != nil {
			return nil, fmt.Errorf("wireguard: %s%d: %w", where, p.n, err)
		}
	}
	if err := in.Err(); errors.Is(err, bufio.ErrTooLong) {
		return nil, fmt.Errorf("wireguard: %s%d: a line has %d bytes at most; AllowedIPs and Address may be repeated",
			where, p.n+1, maxLine)
	} else if err != nil {
		return nil, fmt.Errorf("wireguard: %w", err)
	}
	if line, err := p.finish(); err != nil {
		return nil, fmt.Errorf("wireguard: %s%d: %w", where, line, err)
	}
	return p.cfg, nil
}

// A parser holds what has been parsed so far.
type parser struct {
	cfg  *Config
	n    int            // the number of the line, from 1
	peer *Peer          // in a [Peer] section, the last of cfg.Peers; otherwise nil
	in   bool           // in a section
	once map[string]int // the lines of the section's keys that may be given once
	head int            // the line of [Interface], or 0
	at   []int          // the lines of each [Peer]
}

// line parses one line: a section, a key with its value, or an empty line.
func (p *parser) line(text string) error {
	text, _, _ = strings.Cut(text, "#")
	bare := strip(text)
	if bare == "" {
		return nil
	}
	if bare[0] == '[' {
		return p.section(bare)
	}
	name, value, ok := strings.Cut(text, "=")
	k, known := keys[strings.ToLower(strip(name))]
	switch {
	case !p.in:
		return errors.New("there is no section yet; it should begin with [Interface] or [Peer]")
	case !known:
		return p.unknown(strip(name))
	case !ok:
		return fmt.Errorf("%s has no value; the line should be %s = value", k.name, k.name)
	case k.inPeer != (p.peer != nil):
		return fmt.Errorf("%s belongs in %s", k.name, map[bool]string{false: "[Interface]", true: "[Peer]"}[k.inPeer])
	}
	value = strings.TrimSpace(value)
	if k.quick && value == "" {
		return nil // wg-quick ignores it; programs with a web page write all keys, with a value or not
	}
	if !k.many {
		if first := p.once[k.name]; first != 0 {
			return fmt.Errorf("%s is already in line %d; it can be given once", k.name, first)
		}
		p.once[k.name] = p.n
	}
	if err := k.set(p, value); err != nil {
		return fmt.Errorf("%s: %w", k.name, err)
	}
	return nil
}

func (p *parser) section(bare string) error {
	switch strings.ToLower(bare) {
	case "[interface]":
		if p.head != 0 {
			return fmt.Errorf("[Interface] is already in line %d; there can be one", p.head)
		}
		p.head, p.peer = p.n, nil
	case "[peer]":
		p.cfg.Peers = append(p.cfg.Peers, Peer{})
		p.at, p.peer = append(p.at, p.n), &p.cfg.Peers[len(p.cfg.Peers)-1]
	default:
		return fmt.Errorf("the section is %s; it should be [Interface] or [Peer]", show(bare))
	}
	p.in, p.once = true, map[string]int{}
	return nil
}

// unknown returns the error for a line that is neither a section nor a known key. The line may be a
// secret key that stands alone, so the error contains it only if it looks like a name.
func (p *parser) unknown(name string) error {
	letters := strings.IndexFunc(name, func(r rune) bool { return r > unicode.MaxASCII || !unicode.IsLetter(r) }) < 0
	if name == "" || len(name) > 20 || !letters {
		return errors.New("the line should be [Interface], [Peer] or Key = value")
	}
	var list []string
	for _, k := range keyList {
		if k.inPeer == (p.peer != nil) {
			list = append(list, k.name)
		}
	}
	return fmt.Errorf("%s is not a key of this section; it should be one of %s", name, strings.Join(list, ", "))
}

// finish checks what only the whole file shows. If there is an error, it returns the line that
// causes it.
func (p *parser) finish() (int, error) {
	c := p.cfg
	if p.head == 0 {
		return max(p.n, 1), errors.New("[Interface] is missing")
	}
	if c.PrivateKey.IsZero() {
		return p.head, errors.New("[Interface] has no PrivateKey; wg genkey makes one")
	}
	own, seen := c.PrivateKey.Public(), map[Key]int{}
	for i := range c.Peers {
		switch k, line := c.Peers[i].PublicKey, p.at[i]; {
		case k == Key{}:
			return line, errors.New("[Peer] has no PublicKey")
		case k == own:
			return line, errors.New("[Peer] has the PublicKey of this end's own PrivateKey; " +
				"it should be the other end's")
		case seen[k] != 0:
			return line, fmt.Errorf("[Peer] has the PublicKey of the one in line %d; "+
				"put their AllowedIPs into one", seen[k])
		default:
			seen[k] = line
		}
	}
	return 0, nil
}

// strip removes all white space, as wg does.
func strip(s string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(" \t\v\f\r\n", r) {
			return -1
		}
		return r
	}, s)
}

// A fileKey is a key of the file.
type fileKey struct {
	name   string
	inPeer bool // in [Peer], else in [Interface]
	many   bool // may be repeated
	quick  bool // may have an empty value: a key of wg-quick, or a list of wg
	set    func(p *parser, value string) error
}

// keyList has all keys, and keys finds one by its name in lower case. init fills them, because the
// setters refer to both.
var (
	keyList []fileKey
	keys    = map[string]*fileKey{}
)

func init() {
	keyList = []fileKey{
		{"PrivateKey", false, false, false, func(p *parser, v string) error { return setSecret(&p.cfg.PrivateKey, v) }},
		{"ListenPort", false, false, false, func(p *parser, v string) error {
			n, err := number(v, 16, "a port, 0 to 65535")
			p.cfg.ListenPort = int(n)
			return err
		}},
		{"FwMark", false, false, false, func(p *parser, v string) (err error) {
			p.cfg.FwMark, err = parseMark(strip(v))
			return err
		}},
		{"Address", false, true, true, func(p *parser, v string) error {
			same := func(p netip.Prefix) netip.Prefix { return p }
			return setPrefixes(&p.cfg.Addresses, v, "an address such as 10.0.0.1/24", same)
		}},
		{"MTU", false, false, true, setMTU},
		{"DNS", false, true, true, func(p *parser, v string) error {
			list := fields(v)
			for _, s := range list {
				if err := checkDNS(s); err != nil {
					return err
				}
			}
			p.cfg.DNS = append(p.cfg.DNS, list...)
			return nil
		}},
		{"Table", false, false, true, setTable},
		{"SaveConfig", false, false, false, func(p *parser, v string) error {
			if v := strings.ToLower(v); v != "true" && v != "false" {
				return fmt.Errorf("%s; it should be true or false", show(v))
			}
			return nil
		}},
		{"PreUp", false, true, true, hook("PreUp")},
		{"PostUp", false, true, true, hook("PostUp")},
		{"PreDown", false, true, true, hook("PreDown")},
		{"PostDown", false, true, true, hook("PostDown")},
		{"PublicKey", true, false, false, func(p *parser, v string) (err error) {
			p.peer.PublicKey, err = ParseKey(strip(v))
			return err
		}},
		{"PresharedKey", true, false, false, func(p *parser, v string) error {
			return setSecret(&p.peer.PresharedKey, v)
		}},
		{"AllowedIPs", true, true, true, func(p *parser, v string) error {
			return setPrefixes(&p.peer.AllowedIPs, v, "a prefix such as 10.0.0.0/24", netip.Prefix.Masked)
		}},
		{"Endpoint", true, false, false, func(p *parser, v string) error {
			p.peer.Endpoint = strip(v)
			return checkEndpoint(p.peer.Endpoint)
		}},
		{"PersistentKeepalive", true, false, false, func(p *parser, v string) error {
			if strings.EqualFold(strip(v), "off") {
				return nil
			}
			n, err := number(v, 16, "off, or 0 to 65535 seconds")
			p.peer.PersistentKeepalive = time.Duration(n) * time.Second
			return err
		}},
	}
	for i := range keyList {
		keys[strings.ToLower(keyList[i].name)] = &keyList[i]
	}
}

func setSecret(to *Secret, v string) (err error) {
	*to, err = ParseSecret(strip(v))
	return err
}

func setMTU(p *parser, v string) error {
	right := fmt.Sprintf("%d to %d bytes", minMTU, maxMTU)
	n, err := number(v, 32, right)
	if err == nil && (n < minMTU || n > maxMTU) {
		err = fmt.Errorf("%d; it should be %s", n, right)
	}
	p.cfg.MTU = int(n)
	return err
}

func setTable(p *parser, v string) error {
	switch strings.ToLower(strip(v)) {
	case "auto":
	case "off":
		p.cfg.NoRoutes = true
	default:
		return fmt.Errorf("%s; it should be auto or off, as a stack has one table", show(v))
	}
	return nil
}

func hook(name string) func(p *parser, v string) error {
	return func(p *parser, v string) error {
		p.cfg.Hooks = append(p.cfg.Hooks, Hook{Key: name, Command: v, Line: p.n})
		return nil
	}
}

// number parses a decimal number of up to bits bits. right says, for the error, what it should be.
func number(v string, bits int, right string) (uint64, error) {
	v = strip(v)
	n, err := strconv.ParseUint(v, 10, bits)
	if err != nil {
		return 0, fmt.Errorf("%s; it should be %s", show(v), right)
	}
	return n, nil
}

// parseMark parses off, a decimal number, or 0x and a hexadecimal number.
func parseMark(v string) (uint32, error) {
	if strings.EqualFold(v, "off") {
		return 0, nil
	}
	digits, base := v, 10
	if len(v) > 2 && strings.EqualFold(v[:2], "0x") {
		digits, base = v[2:], 16
	}
	n, err := strconv.ParseUint(digits, base, 32)
	if err != nil {
		return 0, fmt.Errorf("%s; it should be off, 0 to 4294967295, or 0x and a hexadecimal number", show(v))
	}
	return uint32(n), nil
}

// setPrefixes appends the prefixes of a list, each changed by form. An address without a prefix
// length is a prefix of that one address.
func setPrefixes(to *[]netip.Prefix, v, right string, form func(netip.Prefix) netip.Prefix) error {
	for _, s := range fields(v) {
		p, err := parsePrefix(s)
		if err != nil {
			return fmt.Errorf("%s; it should be %s", show(s), right)
		}
		*to = append(*to, form(p))
	}
	return nil
}

func parsePrefix(s string) (netip.Prefix, error) {
	if strings.Contains(s, "/") {
		p, err := netip.ParsePrefix(s)
		if err == nil && p.Addr().Is4In6() {
			err = errors.New("IPv4 in IPv6")
		}
		return p, err
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Is4In6() || a.Zone() != "" {
		return netip.Prefix{}, errors.New("not an address")
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}

// fields splits a list at commas and white space.
func fields(v string) []string {
	return strings.FieldsFunc(v, func(r rune) bool { return strings.ContainsRune(", \t\v\f\r\n", r) })
}
