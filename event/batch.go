package event

// MaxBatch is how many events a Batch takes. A signature in a batch of 64 costs what it costs in one of 256 within a tenth
// (BenchmarkBatch), and who comes behind it waits for half a millisecond.
const MaxBatch = 64

// signature is one that is to be checked: 32 bytes of x-only key, 32 of message, 64 of signature (BIP-340).
type signature struct {
	key     PubKey
	message [32]byte
	sig     [64]byte
}

// Batch checks events as Event.Verify does, with the same answers, but the signatures of several together where the
// verifier in use can do that for less (BIP-340, batch verification). It is for one goroutine at a time.
type Batch struct {
	n        int
	sigs     [MaxBatch]signature
	verdicts [MaxBatch]verdict
	genuine  [MaxBatch]bool
	together batchVerifier
	alone    int // how many signatures more are checked one by one
	backoff  int // what alone was set to when most of a batch had to be checked singly; 0 after one that was genuine
}

// verdict is what a batchVerifier says of one signature.
type verdict uint8

const (
	undecided verdict = iota // to be checked singly
	genuine
	forged
)

// batchVerifier checks signatures together. It decides what it can: all of them when all are genuine.
type batchVerifier interface {
	// verify sets the verdict on each of sigs; there are MaxBatch at most. No signature that is not genuine may become so, but
	// with a probability of 2^-120 at most.
	verify(sigs []signature, verdicts []verdict)
	// least is the length from which on it costs less than as many single checks.
	least() int
}

// Where a forged signature has spoiled a batch, as many are checked singly next; where most of a batch had to be checked singly, four
// times as many, and twice that each further time. So who sends forged events with the others makes these cost a quarter more than
// single checks, at most.
const (
	aloneAfterSpoiled = 4
	mostAlone         = 64 * MaxBatch
)

// NewBatch makes an empty one. Its memory, 0.7 MiB, is used again by each batch.
func NewBatch() *Batch { return &Batch{together: newBatchVerifier()} }

// Add takes e into the batch, if its id is its hash, and keeps nothing of it; the error is BadID. The batch must not be full.
func (b *Batch) Add(e *Event) error {
	if e.Hash() != e.ID {
		return refuse(BadID, "not the hash of the event")
	}
	b.sigs[b.n] = signature{e.PubKey, e.ID, e.Sig}
	b.n++
	return nil
}

// Len is how many events Verify will answer for.
func (b *Batch) Len() int { return b.n }

// Verify tells for each event, in the order of Add, whether its author signed it, and empties the batch. The answer is good until
// the next Verify.
func (b *Batch) Verify() []bool {
	n := b.n
	b.n = 0
	sigs, verdicts, answer := b.sigs[:n], b.verdicts[:n], b.genuine[:n]
	clear(verdicts)
	if b.together != nil && n >= b.together.least() {
		if b.alone == 0 {
			b.together.verify(sigs, verdicts)
			b.learn(verdicts)
		} else {
			b.alone = max(0, b.alone-n)
		}
	}
	for i := range sigs {
		if verdicts[i] == undecided {
			answer[i] = verifySchnorr(&sigs[i].key, &sigs[i].sig, &sigs[i].message)
		} else {
			answer[i] = verdicts[i] == genuine
		}
	}
	return answer
}

// learn decides from a batch's verdicts how many of the next signatures are checked singly.
func (b *Batch) learn(verdicts []verdict) {
	open := 0
	for _, v := range verdicts {
		if v == undecided {
			open++
		}
	}
	switch {
	case open == 0:
		b.backoff = 0
	case open <= len(verdicts)/4:
		b.alone = len(verdicts)
	default:
		b.backoff = min(max(aloneAfterSpoiled*len(verdicts), 2*b.backoff), mostAlone)
		b.alone = b.backoff
	}
}
