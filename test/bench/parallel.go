package bench

import "sync"

// firstError keeps the first error that it is given.
type firstError struct {
	mu  sync.Mutex
	err error
}

func (f *firstError) put(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
	}
}

func (f *firstError) get() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// parallel calls do for 0 to n-1, so many at a time, until one fails, and answers the first error.
func parallel(n, width int, do func(int) error) error {
	var (
		wait   sync.WaitGroup
		mu     sync.Mutex
		next   int
		failed firstError
	)
	take := func() int {
		mu.Lock()
		defer mu.Unlock()
		if next == n || failed.get() != nil {
			return -1
		}
		next++
		return next - 1
	}
	for range min(n, width) {
		wait.Go(func() {
			for i := take(); i >= 0; i = take() {
				failed.put(do(i))
			}
		})
	}
	wait.Wait()
	return failed.get()
}
