// main() of the whole-engine tests: GoogleTest's, and --device=cuda.
#include <gtest/gtest.h>

#include "support/arrangement.h"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (!invar::tests::take_device_flag(&argc, argv)) return 2;
  return RUN_ALL_TESTS();
}
