#include "kernels/blocks.h"

#include <cstddef>
#include <new>

namespace openwork {
namespace {

constexpr std::align_val_t kLine{64};

class Scratch {
 public:
  Scratch() = default;
  ~Scratch() { ::operator delete[](data_, kLine); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  uint8_t* of(int64_t bytes) {
    if (bytes > size_) grow(bytes);
    return data_;
  }

 private:
  void grow(int64_t bytes) {
    ::operator delete[](data_, kLine);
    data_ = nullptr;
    size_ = 0;
    data_ = static_cast<uint8_t*>(::operator new[](static_cast<std::size_t>(bytes), kLine));
    size_ = bytes;
  }

  uint8_t* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace

uint8_t* block_scratch(int64_t bytes) {
  thread_local Scratch scratch;
  return scratch.of(bytes);
}

}  // namespace openwork
