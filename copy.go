package bsdnet

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"

	"bsdnet/internal/kern"
)

// The buffers of ReadFrom and WriteTo. Most connections of a proxy are idle, and wait in a Read. So
// a call that waits holds no buffer, or a small one if it waits within the Read of another reader.
var (
	copyBufs = sync.Pool{New: func() any { return new([64 << 10]byte) }}
	waitBufs = sync.Pool{New: func() any { return new([waitBuf]byte) }}
)

// waitBuf is the size of a small buffer.
const waitBuf = 2 << 10

// ReadFrom writes all data that it reads from r until io.EOF: io.ReaderFrom.
func (c *TCPConn) ReadFrom(r io.Reader) (int64, error) {
	n, more, err := int64(0), true, error(nil)
	for more && err == nil {
		var k int64
		k, more, err = c.readFromSmall(r)
		n += k
		if more && err == nil {
			k, more, err = c.readFromLarge(r)
			n += k
		}
	}
	return n, c.copyError("readfrom", err)
}

// readFromSmall copies through a small buffer until r fills it, which says that r may have more. It
// reports false at the end of r.
func (c *TCPConn) readFromSmall(r io.Reader) (n int64, more bool, err error) {
	buf := waitBufs.Get().(*[waitBuf]byte)
	defer waitBufs.Put(buf)
	return c.readFrom(r, buf[:], func(k int) bool { return k < len(buf) })
}

// readFromLarge copies through a large buffer as long as r fills it. If r does not, the next Read
// may have to wait.
func (c *TCPConn) readFromLarge(r io.Reader) (n int64, more bool, err error) {
	buf := copyBufs.Get().(*[64 << 10]byte)
	defer copyBufs.Put(buf)
	return c.readFrom(r, buf[:], func(k int) bool { return k == len(buf) })
}

// readFrom copies through buf until on reports false for the number of bytes that a Read returned.
func (c *TCPConn) readFrom(r io.Reader, buf []byte, on func(k int) bool) (n int64, more bool, err error) {
	for {
		k, rerr := r.Read(buf)
		if k < 0 || k > len(buf) {
			return n, false, errBadRead
		}
		if k > 0 {
			w, werr := c.Write(buf[:k])
			if n += int64(w); werr != nil {
				return n, false, werr
			}
		}
		if rerr != nil {
			return n, false, rerr
		}
		if !on(k) {
			return n, true, nil
		}
	}
}

// WriteTo writes to w all data that arrives until the peer closes its side: io.WriterTo.
func (c *TCPConn) WriteTo(w io.Writer) (int64, error) {
	n, more, err := int64(0), true, error(nil)
	for more && err == nil {
		if err = c.opErrno("read", "read", c.so.Sorcvwait()); err == nil {
			var k int64
			k, more, err = c.writeWhatIs(w)
			n += k
		}
	}
	return n, c.copyError("writeto", err)
}

// writeWhatIs writes to w the data that has arrived. It reports false at the end of the stream.
func (c *TCPConn) writeWhatIs(w io.Writer) (n int64, more bool, err error) {
	buf := copyBufs.Get().(*[64 << 10]byte)
	defer copyBufs.Put(buf)
	for {
		k, errno := c.so.Soreceive(buf[:], kern.MSG_DONTWAIT)
		switch {
		case errno == syscall.EAGAIN:
			return n, true, nil // or its deadline has passed, which Sorcvwait says
		case errno != 0:
			return n, false, c.opErrno("read", "read", errno)
		case k == 0:
			return n, false, nil
		}
		j, err := w.Write(buf[:k])
		n += int64(max(min(j, k), 0))
		switch {
		case j < 0 || j > k:
			return n, false, errBadWrite
		case err != nil:
			return n, false, err
		case j < k:
			return n, false, io.ErrShortWrite
		}
	}
}

// The errors of a reader and of a writer that break their contract, as in io.Copy.
var (
	errBadRead  = errors.New("bsdnet: the reader returned an invalid count from Read")
	errBadWrite = errors.New("bsdnet: the writer returned an invalid count from Write")
)

func (c *TCPConn) copyError(op string, err error) error {
	if err == nil || err == io.EOF {
		return nil
	}
	return c.opError(op, err)
}

// WriteBuffers writes all of v, in as few segments as if it were one slice. It consumes what it has
// written, as net.Buffers.WriteTo does on a *net.TCPConn.
func (c *TCPConn) WriteBuffers(v *net.Buffers) (int64, error) {
	n, errno := c.so.Sosendv(*v)
	for left := n; len(*v) > 0; *v = (*v)[1:] {
		if b := (*v)[0]; left < len(b) || errno != 0 && left == 0 {
			(*v)[0] = b[left:]
			break
		}
		left -= len((*v)[0])
		(*v)[0] = nil
	}
	return int64(n), c.opErrno("writev", "writev", errno)
}
