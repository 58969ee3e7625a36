/** As `bench/e2e/import-modules.ts`, for the packages of this folder. */
import { answerImports } from '../e2e/answer-imports.ts'

answerImports((name) => import(name))
