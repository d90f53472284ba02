// A copy of some bytes that ends right before a page which may not be touched: a read or write behind it faults.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <new>

#include "kernels/gemm.h"

namespace openwork {

// The whole elements, in bytes, that a kernel may read behind an operand: a page's end less these is where its type may lie.
constexpr size_t read_ahead(size_t element_bytes) { return static_cast<size_t>(kReadAhead) / element_bytes * element_bytes; }

class Guarded {
 public:
  // `slack` bytes behind the data stay readable.
  Guarded(const void* source, size_t size, size_t slack) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    bytes_ = (size + slack + page - 1) / page * page + page;
    base_ = static_cast<uint8_t*>(mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (base_ == MAP_FAILED || mprotect(base_ + bytes_ - page, page, PROT_NONE) != 0) throw std::bad_alloc();
    data_ = base_ + bytes_ - page - size - slack;
    if (source && size) std::memcpy(data_, source, size);
  }
  ~Guarded() { munmap(base_, bytes_); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  uint8_t* data() const { return data_; }

 private:
  uint8_t *base_, *data_;
  size_t bytes_;
};

}  // namespace openwork
