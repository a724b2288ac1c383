"""Study of trained runs: does uncertainty tell good segmentations from bad ones?"""
