// Memory that kernels may read: aligned, and readable for kReadAhead bytes behind its last element.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <vector>

#include "kernels/gemm.h"
#include "kernels/huge_pages.h"

namespace openwork {

inline constexpr int64_t kAlignment = 64;

// What `bytes` of elements take up with the read-ahead, in whole cache lines.
constexpr int64_t padded_bytes(int64_t bytes) { return (bytes + kReadAhead + kAlignment - 1) / kAlignment * kAlignment; }

class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(int64_t bytes)
      : data_(static_cast<std::byte*>(::operator new[](padded_bytes(bytes), std::align_val_t(kAlignment)))), bytes_(bytes) {
    ask_for_huge_pages(data_.get(), static_cast<size_t>(padded_bytes(bytes)));
  }

  std::byte* data() const { return data_.get(); }
  int64_t bytes() const { return bytes_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_.get());
  }
  // Hands the memory over; free_aligned() ends it.
  std::byte* release() { return data_.release(); }

 private:
  struct Free {
    void operator()(std::byte* p) const { free_aligned(p); }
  };
  std::unique_ptr<std::byte[], Free> data_;
  int64_t bytes_ = 0;

 public:
  static void free_aligned(void* p) { ::operator delete[](p, std::align_val_t(kAlignment)); }
};

// Its contents are lost where it grows.
inline void grow(AlignedBuffer& buffer, int64_t bytes) {
  if (buffer.bytes() < bytes) buffer = AlignedBuffer(bytes);
}

// Memory of each thread of a pool.
class ThreadScratch {
 public:
  ThreadScratch(int threads, int64_t bytes) : stride_(padded_bytes(bytes)), buffer_(threads * stride_) {}
  std::byte* of(int thread) const { return buffer_.data() + thread * stride_; }

 private:
  int64_t stride_;
  AlignedBuffer buffer_;
};

// For arrays that a kernel reads in whole vectors: one that crosses a cache line costs two reads.
template <class T>
struct AlignedAllocator {
  using value_type = T;
  AlignedAllocator() = default;
  template <class U>
  AlignedAllocator(const AlignedAllocator<U>&) {}
  T* allocate(size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), std::align_val_t(kAlignment))); }
  void deallocate(T* p, size_t) { ::operator delete(p, std::align_val_t(kAlignment)); }
  bool operator==(const AlignedAllocator&) const { return true; }
};
template <class T>
using Aligned = std::vector<T, AlignedAllocator<T>>;
using Floats = Aligned<float>;

}  // namespace openwork
