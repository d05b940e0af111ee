"""Foreign weights to our trees and back, with every key accounted for."""
