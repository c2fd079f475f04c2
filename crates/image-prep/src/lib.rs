//! How pixels become numbers: decoding, Pillow-exact resampling, cropping and normalisation
